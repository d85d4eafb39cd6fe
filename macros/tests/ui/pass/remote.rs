#![deny(missing_docs, unused, private_interfaces)]
//! Remote types of many kinds.
mod inner {
    /// Something.
    #[derive(commonhold::Shared)]
    pub(crate) struct Private(pub(crate) u64);

    pub(crate) struct Tally<T>(pub(crate) T);

    #[commonhold::remote]
    impl Tally<u64> {
        /// Hits.
        pub fn r#match(&mut self, (a, _): (u64, u8), _: &str, mut c: Vec<u8>) -> Private {
            c.push(1);
            self.0 += a + c.len() as u64;
            Private(self.0)
        }
        #[cfg(any())]
        pub fn not_there(&self, missing: Missing) {}
        #[local]
        pub fn local<T: Into<u64>>(&self, value: T) -> u64 {
            value.into()
        }
        pub fn nothing(&self) {}
        pub fn other(&self, other: TallyProxy) -> commonhold::Result<TallyProxy> {
            Ok(other)
        }
    }
}

#[commonhold::remote]
trait Speak {
    fn speak(&self, to: &str) -> String;
    fn learn(&mut self, words: &[String]) {
        let _ = words;
    }
    #[local]
    fn think<T>(&self, _about: T)
    where
        Self: Sized,
    {
    }
    fn new() -> Self
    where
        Self: Sized;
}

struct Parrot;

impl Speak for Parrot {
    fn speak(&self, to: &str) -> String {
        to.to_owned()
    }
    fn new() -> Self {
        Parrot
    }
}

#[commonhold::remote(sync, traits(Speak))]
impl Parrot {}

/// One type for several others, each a remote type of its own.
struct Best<T>(Option<T>);

impl<T: PartialOrd> Best<T> {
    fn better(&mut self, value: T) {
        if self.0.as_ref().is_none_or(|best| *best < value) {
            self.0 = Some(value);
        }
    }
}

#[commonhold::remote(name = BestText)]
impl Best<String> {
    /// Takes a value.
    pub fn offer(&mut self, value: String) {
        self.better(value)
    }
}

#[commonhold::remote(name = BestNumber)]
impl Best<f64> {
    /// Takes a value.
    pub fn offer(&mut self, value: f64) {
        self.better(value)
    }
}

fn main() {
    Best::<String>(None).offer("a".to_owned());
    Best::<f64>(None).offer(0.5);
    let mut tally = inner::Tally(1u64);
    let _ = tally.r#match((1, 2), "", vec![]).0 + tally.local(5u8);
    tally.nothing();
    let _ = (inner::TallyProxy::other, SpeakProxy::speak, SpeakProxy::learn, Parrot::new, Parrot.think(1));
    let _ = |parrot: ParrotProxy| SpeakProxy::from(parrot);
    let _ = |texts: BestTextProxy, numbers: BestNumberProxy| (texts.offer(String::new()), numbers.offer(1.0));
}

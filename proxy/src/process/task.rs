//! [`Task`]: what may run in another process, and how arguments get to it there.

use super::run::Passage;
use commonhold_ipc::task::{Entry, Runner};
use commonhold_ipc::value::Shared;
use std::any::Any;
use std::marker::PhantomData;

/// A function that can run in another process: an `fn` item, or a closure that captures nothing.
///
/// Nothing implements it by hand. `Args` is a tuple of its arguments, up to eight, or its one argument.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot run in another process with these arguments",
    label = "takes other arguments, or captures variables",
    note = "what runs in another process is an `fn` item, or a closure that captures nothing: pass what it needs as arguments",
    note = "its arguments come as a tuple, `(a, b)`, or as the one value; name the types of a closure's parameters"
)]
pub trait Task<Args, Marker>: Copy + Send + 'static {
    /// What it returns.
    type Output;

    #[doc(hidden)]
    fn call(&self, args: Args) -> Self::Output;
}

/// Marks the functions of one argument that is passed as itself.
#[doc(hidden)]
pub struct One;

#[diagnostic::do_not_recommend]
impl<F, R, A> Task<A, (One, R)> for F
where
    F: Fn(A) -> R + Copy + Send + 'static,
{
    type Output = R;

    fn call(&self, argument: A) -> R {
        self(argument)
    }
}

macro_rules! tasks {
    ($(($($name:ident $value:ident),*))*) => {$(
        #[diagnostic::do_not_recommend]
        impl<F, R, $($name),*> Task<($($name,)*), fn($($name),*) -> R> for F
        where
            F: Fn($($name),*) -> R + Copy + Send + 'static,
        {
            type Output = R;

            fn call(&self, ($($value,)*): ($($name,)*)) -> R {
                self($($value),*)
            }
        }
    )*};
}

tasks! {
    ()
    (A a)
    (A a, B b)
    (A a, B b, C c)
    (A a, B b, C c, D d)
    (A a, B b, C c, D d, E e)
    (A a, B b, C c, D d, E e, G g)
    (A a, B b, C c, D d, E e, G g, H h)
    (A a, B b, C c, D d, E e, G g, H h, I i)
}

/// Stops the compiler at a function that carries something with it: in the function that the user calls, and nowhere deeper, so that
/// there is one message, and it shows the user's line.
pub(crate) const fn assert_no_captures<F>() {
    assert!(
        size_of::<F>() == 0,
        "this closure captures variables of its surroundings (or is a function pointer): another process does not have them. \
         Pass them as arguments instead: `Process::spawn(|x: u64, y: u64| x + y, (x, y))`."
    );
}

/// Runs a function with the arguments that came, and leaves its result.
struct Run<A, M>(PhantomData<fn(A, M)>);

impl<F, A, M> Runner<F> for Run<A, M>
where
    F: Task<A, M>,
    A: Shared,
    F::Output: Shared,
{
    fn run(function: F, passage: &mut dyn Any) {
        let passage = passage.downcast_mut::<Passage>().expect("a process runs its function with a passage");
        passage.carry(|arguments: A| function.call(arguments));
    }
}

/// What names a function to another process of this program.
pub(super) fn entry<F, A, M>(function: F) -> &'static Entry
where
    F: Task<A, M>,
    A: Shared,
    F::Output: Shared,
    M: 'static,
{
    Entry::of::<F, Run<A, M>>(function)
}

#[derive(commonhold::Shared)]
struct Marker;

#[derive(commonhold::Shared)]
struct Marks {
    all: Option<Vec<Marker>>,
}

fn main() {
    println!("{}", commonhold::__rt::text::<Marks>());
}

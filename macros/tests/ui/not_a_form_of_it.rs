use commonhold::{AsShared, Shared};

fn write<T: Shared>(_: impl AsShared<T>) {}

fn main() {
    write::<String>(5);
    write::<Vec<u8>>("text");
    write::<String>("text");
}

#[derive(commonhold::Shared, commonhold::Key)]
struct Fine(u8);

fn main() {
    assert_eq!(commonhold::__rt::text::<Fine>(), "struct Fine(u8)");
}

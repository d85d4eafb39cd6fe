//! What must not compile, and what the compiler says then: with the derives, and with the facade's functions. It stands with this package
//! because everything that a package's tests depend on is built once more for these cases, and here that is little.

#[test]
fn misuse_does_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
    // With a case that passes trybuild builds instead of checking, which some of the errors need.
    cases.pass("tests/ui/pass/*.rs");
}

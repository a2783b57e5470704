//! State that is not durable does not compile, and the compiler says why.

#[test]
fn state_that_is_not_durable_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}

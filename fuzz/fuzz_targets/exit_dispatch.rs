#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::exit_dispatch::run(bytes));

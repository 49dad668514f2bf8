#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::page_walk::run(bytes));

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::acpi_power::run(bytes));

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| segmenter_tests::fuzz::component(input));

#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| project_yum_fuzz::targets::resp(data));

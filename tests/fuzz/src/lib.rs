//! The fuzz targets, for libFuzzer (`tests/fuzz/run`) and for the short run of `tests/fuzz.rs`.

pub mod memory;
pub mod targets;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

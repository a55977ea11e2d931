//! The server, with its allocations counted: for each line of its input it tells the log's stream how many there
//! were so far. For the tests, and of use beside `project-yum bench`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Write as _, stderr, stdin};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counted.
struct Counting;

#[expect(
    unsafe_code,
    reason = "an allocator is; it hands every call on as it came"
)]
// SAFETY: every method does what the system's allocator does with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    std::thread::spawn(|| {
        for _ in stdin().lines().map_while(Result::ok) {
            let line = format!("allocations: {}\n", ALLOCATIONS.load(Ordering::Relaxed));
            // In one write, so that nobody reads half of it.
            let told = stderr().write_all(line.as_bytes());
            told.expect("the log can be written to");
        }
    });
    ExitCode::from(project_yum::commands::run(std::env::args_os()))
}

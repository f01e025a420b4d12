//! The allocator of the C library.

/// Has what is freed used again, or given back. By default each thread gets its own part of the heap, and a value that one of
/// them frees is of no use to the others; and what was once the largest block that was freed is kept from then on. To be called
/// before any thread is started.
pub fn keep_heap_small() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, 128 << 10)] {
        // SAFETY: the call has no preconditions, and no other thread allocates yet.
        unsafe { libc::mallopt(parameter, value) };
    }
}

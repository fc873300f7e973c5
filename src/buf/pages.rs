//! The size of the process's pages, which is a setting of the whole process and is made when it is loaded. It knows nothing
//! of buffers.
#![expect(unsafe_code, reason = "prctl(2), before anything else runs")]

/// Runs before the allocator sets itself up, so that not even its first pages are huge.
#[used]
// SAFETY: the section holds functions without arguments, which the loader calls before `main`; this one needs nothing
// that is set up later.
#[unsafe(link_section = ".init_array.00100")]
static AT_START: extern "C" fn() = use_small_pages;

/// Has the kernel use small pages for this process: buffers are touched at their fronts and connections are small, so
/// huge pages would multiply what a process at rest holds.
extern "C" fn use_small_pages() {
    // SAFETY: no memory is touched. Where the kernel refuses, only the process's size differs.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

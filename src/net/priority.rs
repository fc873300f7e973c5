//! Threads that are to leave the processors to the cores.
#![expect(unsafe_code, reason = "setpriority(2)")]

/// What is added to the thread's nice value.
const NICE: libc::c_int = 10;

/// Gives this thread a lower priority than the cores have. Where that is refused, it keeps its own.
pub fn lower_priority() {
    // On Linux a process of 0 is the calling thread.
    // SAFETY: no memory is touched.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

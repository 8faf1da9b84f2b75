/* The pause container: holds a pod's namespaces and reaps its orphans. Built without libc, about 1 KB of code.
   Linux system calls only: pause(2), wait4(2), rt_sigaction(2), exit(2). */
#if defined(__x86_64__)
static long call(long n, long a, long b, long c, long d) {
    long r;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return r;
}
enum { SYS_rt_sigprocmask = 14, SYS_rt_sigtimedwait = 128, SYS_wait4 = 61, SYS_exit = 60 };
#elif defined(__aarch64__)
static long call(long n, long a, long b, long c, long d) {
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
enum { SYS_rt_sigprocmask = 135, SYS_rt_sigtimedwait = 137, SYS_wait4 = 260, SYS_exit = 93 };
#else
#error "pause: unknown architecture"
#endif

enum { SIGINT = 2, SIGTERM = 15, SIGCHLD = 17, SIG_BLOCK = 0, WNOHANG = 1 };

void _start(void) {
    unsigned long set = (1UL << (SIGINT - 1)) | (1UL << (SIGTERM - 1)) | (1UL << (SIGCHLD - 1));
    call(SYS_rt_sigprocmask, SIG_BLOCK, (long)&set, 0, sizeof set);
    for (;;) {
        /* Waiting for blocked signals needs no handlers, so no libc's restorer. */
        long signal = call(SYS_rt_sigtimedwait, (long)&set, 0, 0, sizeof set);
        if (signal == SIGINT || signal == SIGTERM)
            call(SYS_exit, 0, 0, 0, 0);
        while (call(SYS_wait4, -1, 0, WNOHANG, 0) > 0)
            ;
    }
}

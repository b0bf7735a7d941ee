// Fibres: stacks that take turns on one thread.
//
// On x86-64 a switch saves the six registers that a call preserves and changes the stack; elsewhere
// ucontext does it. Under AddressSanitizer every switch is announced.
//
// Invariant: a fibre's stack is whole when it yields: its guard word is checked.
#include "core.h"

#include <stdlib.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emu {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t STACK_LEN = 256 * 1024;
#else
constexpr size_t STACK_LEN = 64 * 1024;
#endif
constexpr uint64_t GUARD = 0x5AFE57AC6A2D0115;

#if defined(__x86_64__)
extern "C" void emu_switch(void** save, void* load);
asm(R"(
.text
.globl emu_switch
.type emu_switch, @function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch, .-emu_switch
)");

static void switch_stacks(void** save, void* load) { emu_switch(save, load); }
#else
static void switch_stacks(void** save, void* load) {
    ucontext_t here;
    *save = &here;
    swapcontext(&here, static_cast<ucontext_t*>(load));
}
#endif

static void before_switch(void** own_fake, const void* bottom, size_t len) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(own_fake, bottom, len);
#else
    (void)own_fake, (void)bottom, (void)len;
#endif
}

static void after_switch(void* own_fake, const void** bottom, size_t* len) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(own_fake, bottom, len);
#else
    (void)own_fake, (void)bottom, (void)len;
#endif
}

static uint64_t& guard(Fiber& fiber) { return *reinterpret_cast<uint64_t*>(fiber.stack); }

void yield() {
    Context& c = *current;
    Fiber& fiber = *c.fiber;
    if (guard(fiber) != GUARD && !c.has_failed) {
        c.has_failed = true;
        c.error = "a thread's stack overflowed: arrays too large for registers";
    }
    before_switch(&fiber.sanitizer_stack, c.main_stack_bottom, c.main_stack_len);
    switch_stacks(&fiber.stack_pointer, c.main_stack_pointer);
    after_switch(fiber.sanitizer_stack, &c.main_stack_bottom, &c.main_stack_len);
}

void resume(Fiber& fiber) {
    Context& c = *current;
    c.fiber = &fiber;
    before_switch(&c.main_sanitizer_stack, fiber.stack, STACK_LEN);
    switch_stacks(&c.main_stack_pointer, fiber.stack_pointer);
    after_switch(c.main_sanitizer_stack, nullptr, nullptr);
}

static void leave(Context& c) {
    Fiber& fiber = *c.fiber;
    WarpState& warp = c.warps[fiber.warp];
    if (warp.num_arrived > 0) {
        fail("a thread leaves while others of its warp wait in %s (line %d)", warp.pending->name,
             warp.line);
    }
    if (c.num_at_barrier > 0) {
        fail("a thread leaves before the barrier that others wait at (line %d)", c.barrier_line);
    }
    fiber.wait = Wait::Done;
    warp.num_done += 1;
    c.num_done += 1;
}

static void run_fiber() {
    after_switch(nullptr, &current->main_stack_bottom, &current->main_stack_len);
    current->entry(current->args);
    leave(*current);
    for (;;) {
        yield();
    }
}

void prepare(Fiber& fiber) {
    if (fiber.stack == nullptr) {
        void* memory = mmap(nullptr, STACK_LEN, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            abort();
        }
        fiber.stack = static_cast<unsigned char*>(memory);
    }
#if defined(__SANITIZE_ADDRESS__)
    // A launch that failed left its frames behind.
    __asan_unpoison_memory_region(fiber.stack, STACK_LEN);
#endif
    guard(fiber) = GUARD;
    fiber.sanitizer_stack = nullptr;
#if defined(__x86_64__)
    void** top = reinterpret_cast<void**>(fiber.stack + STACK_LEN);
    // The address that `ret` takes, on a stack aligned as after a call.
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&run_fiber);
    for (int i = 0; i < 6; i++) {
        *--top = nullptr;
    }
    fiber.stack_pointer = top;
#else
    // The context lies at the stack's lower end, behind the guard.
    ucontext_t* start = reinterpret_cast<ucontext_t*>(fiber.stack + 64);
    getcontext(start);
    start->uc_stack.ss_sp = fiber.stack + 8192;
    start->uc_stack.ss_size = STACK_LEN - 8192;
    start->uc_link = nullptr;
    makecontext(start, run_fiber, 0);
    fiber.stack_pointer = start;
#endif
}

}  // namespace emu

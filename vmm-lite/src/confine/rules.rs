//! Which system calls each kind of thread makes. A line is a rule; what no line has is refused. Each rule is tested by
//! taking it away.

use super::ConfineError;
use kvm_bindings::{kvm_irqfd, kvm_regs};
use libc::*;
use rustix::ioctl::{Opcode, opcode};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;

/// What a thread is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Starts the others, waits for the end, answers what is asked.
    Main,
    /// Runs the guest, and works on registers.
    Vcpu,
    /// Feeds what is typed to a serial port.
    Serial,
    /// Hears what is asked at the control socket.
    Control,
    /// Waits for the signals that end the machine.
    Signals,
    /// Looks after an interface's connection to the switch.
    Net,
    /// Serves a disk.
    Disk,
    /// Serves random bytes.
    Rng,
}

/// A system call, and which of its arguments must be what for it to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    call: c_long,
    when: &'static [When],
    /// It is made in vain: permission denied.
    denied: bool,
}

/// What an argument, counted from 0, must be. Of all that are asked for here the kernel reads 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Is(u8, u32),
    Lacks(u8, u32),
}
use When::{Is, Lacks};

const fn call(call: c_long) -> Rule {
    when(call, &[])
}

const fn when(call: c_long, when: &'static [When]) -> Rule {
    Rule { call, when, denied: false }
}

const fn denied(call: c_long) -> Rule {
    Rule { call, when: &[], denied: true }
}

/// An ioctl of this number.
const fn ioctl(opcode: Opcode) -> [When; 1] {
    [Is(1, opcode)]
}

/// KVM's ioctls.
const KVM: u8 = 0xae;
const KVM_RUN: &[When] = &ioctl(opcode::none(KVM, 0x80));
const KVM_GET_REGS: &[When] = &ioctl(opcode::read::<kvm_regs>(KVM, 0x81));
const KVM_KVMCLOCK_CTRL: &[When] = &ioctl(opcode::none(KVM, 0xad));
const KVM_IRQFD: &[When] = &ioctl(opcode::write::<kvm_irqfd>(KVM, 0x76));
/// Sockets and terminals.
const BLOCKING: &[When] = &ioctl(FIONBIO as Opcode);
const PUT_TERMINAL_BACK: &[When] = &ioctl(TCSETS2 as Opcode);
const DUPLICATE: &[When] = &[Is(1, F_DUPFD_CLOEXEC as u32)];
const UNIX: &[When] = &[Is(0, AF_UNIX as u32)];
/// Memory is never made executable.
const NO_CODE: &[When] = &[Lacks(2, PROT_EXEC as u32)];

/// What any thread does: it waits, allocates, tells what went wrong, ends.
const EVERY: &[Rule] = &[
    call(SYS_futex),
    call(SYS_sched_yield),
    // Where the clock cannot be read without a system call.
    call(SYS_clock_gettime),
    call(SYS_write),
    call(SYS_brk),
    when(SYS_mmap, NO_CODE),
    when(SYS_mprotect, NO_CODE),
    call(SYS_mremap),
    call(SYS_madvise),
    call(SYS_munmap),
    // glibc looks at what the kernel does with memory before it gives some back, and takes no for an answer.
    denied(SYS_openat),
    call(SYS_rt_sigprocmask),
    call(SYS_sigaltstack),
    call(SYS_exit),
];

const MAIN: &[Rule] = &[
    // Waits that a stop (Ctrl-Z) came into.
    call(SYS_restart_syscall),
    // Interrupts vCPUs.
    call(SYS_getpid),
    call(SYS_tgkill),
    // Hands a signal over to the thread that waits for it.
    call(SYS_sendto),
    call(SYS_rt_sigreturn),
    // Cuts the line to the switch.
    call(SYS_shutdown),
    call(SYS_close),
    call(SYS_exit_group),
];

const VCPU: &[Rule] = &[
    when(SYS_ioctl, KVM_RUN),
    when(SYS_ioctl, KVM_KVMCLOCK_CTRL),
    when(SYS_ioctl, KVM_IRQFD),
    when(SYS_ioctl, KVM_GET_REGS),
    // Interrupted.
    call(SYS_rt_sigreturn),
    // Waits at the port.
    call(SYS_ppoll),
    call(SYS_read),
    // Resets an interface: waits for the switch, and cuts the line to one that is silent.
    call(SYS_restart_syscall),
    call(SYS_shutdown),
    call(SYS_close),
];

const SERIAL: &[Rule] = &[
    call(SYS_ppoll),
    call(SYS_read),
    call(SYS_accept4),
    when(SYS_ioctl, BLOCKING),
    when(SYS_fcntl, DUPLICATE),
    call(SYS_close),
    call(SYS_unlink),
    when(SYS_ioctl, PUT_TERMINAL_BACK),
];

const CONTROL: &[Rule] = &[
    call(SYS_ppoll),
    call(SYS_accept4),
    when(SYS_ioctl, BLOCKING),
    call(SYS_recvfrom),
    call(SYS_sendto),
    call(SYS_close),
    call(SYS_unlink),
];

const SIGNALS: &[Rule] = &[call(SYS_recvfrom), call(SYS_close)];

const NET: &[Rule] = &[
    call(SYS_ppoll),
    call(SYS_read),
    when(SYS_socket, UNIX),
    call(SYS_connect),
    when(SYS_ioctl, BLOCKING),
    when(SYS_fcntl, DUPLICATE),
    call(SYS_sendmsg),
    call(SYS_recvmsg),
    call(SYS_close),
];

const DISK: &[Rule] =
    &[call(SYS_ppoll), call(SYS_read), call(SYS_pread64), call(SYS_pwrite64), call(SYS_fdatasync)];

const RNG: &[Rule] = &[call(SYS_ppoll), call(SYS_read), call(SYS_getrandom)];

impl Role {
    /// As it is called to users.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Vcpu => "vCPU",
            Self::Serial => "serial port",
            Self::Control => "control socket",
            Self::Signals => "signals",
            Self::Net => "network interface",
            Self::Disk => "disk",
            Self::Rng => "random bytes",
        }
    }

    /// What it does beside [`EVERY`].
    const fn own(self) -> &'static [Rule] {
        match self {
            Self::Main => MAIN,
            Self::Vcpu => VCPU,
            Self::Serial => SERIAL,
            Self::Control => CONTROL,
            Self::Signals => SIGNALS,
            Self::Net => NET,
            Self::Disk => DISK,
            Self::Rng => RNG,
        }
    }

    /// As programs for the kernel, which heeds the strictest: one that denies, and one that ends the process.
    pub(super) fn filters(self) -> Result<[BpfProgram; 2], ConfineError> {
        let lists = [(None, EVERY), (Some(self), self.own())].into_iter();
        let rules =
            lists.flat_map(|(list, rules)| (0..).zip(rules).map(move |(at, rule)| (Place(list, at), rule)));
        #[cfg(test)]
        let rules = rules.filter(|(place, _)| Some(*place) != super::tests::taken());
        let (mut made, mut denied) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
        // Closing a descriptor looks at it first, in a build that asserts.
        #[cfg(debug_assertions)]
        made.insert(SYS_fcntl, vec![SeccompRule::new(vec![Is(1, F_GETFD as u32).condition()?])?]);
        for (_, rule) in rules {
            let conditions = made.entry(rule.call).or_default();
            if !rule.when.is_empty() {
                let when = rule.when.iter().map(|when| when.condition()).collect::<Result<_, _>>()?;
                conditions.push(SeccompRule::new(when)?);
            }
            if rule.denied {
                denied.insert(rule.call, Vec::new());
            }
        }
        let program = |calls, otherwise, action| -> Result<BpfProgram, ConfineError> {
            Ok(SeccompFilter::new(calls, otherwise, action, TargetArch::x86_64)?.try_into()?)
        };
        Ok([
            program(denied, SeccompAction::Allow, SeccompAction::Errno(EACCES as u32))?,
            program(made, SeccompAction::Trap, SeccompAction::Allow)?,
        ])
    }
}

/// Where a rule stands: in the list of a kind of thread or in that of all, and its line there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(pub(super) Option<Role>, pub(super) usize);

/// The system call of the rule at this place, if one is there.
#[cfg(test)]
pub(super) fn at(place: Place) -> Option<c_long> {
    place.0.map_or(EVERY, Role::own).get(place.1).map(|rule| rule.call)
}

impl When {
    fn condition(self) -> Result<SeccompCondition, seccompiler::BackendError> {
        let (argument, operator, value) = match self {
            Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
            Lacks(argument, bits) => (argument, SeccompCmpOp::MaskedEq(bits.into()), 0),
        };
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
    }
}

//! The registers of a virtio device, accessed in any order, at any offset and width; the laws are beside the crate's code.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_lite::fuzzing::mmio_registers;

fuzz_target!(|input: &[u8]| mmio_registers(input));

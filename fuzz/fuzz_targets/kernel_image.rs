//! Any bytes as a kernel, with an initrd of any length; the laws are beside the crate's code.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_lite::fuzzing::kernel_image;

fuzz_target!(|input: &[u8]| kernel_image(input));

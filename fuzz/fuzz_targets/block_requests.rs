//! A disk whose driver puts anything into its ring and memory; the laws are beside the crate's code.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_lite::fuzzing::block_requests;

fuzz_target!(|input: &[u8]| block_requests(input));

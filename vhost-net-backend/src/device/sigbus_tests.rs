//! Memory that vanishes while it is read and written.

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::{PAGE, guard};

fn mapped(pages: usize) -> (std::fs::File, MmapRegion<()>) {
    let file = std::fs::File::from(memfd_create("guest", MemfdFlags::CLOEXEC).expect("a memfd"));
    ftruncate(&file, (pages * PAGE) as u64).expect("its size");
    let map = MmapRegion::from_file(FileOffset::new(file.try_clone().expect("a dup"), 0), pages * PAGE);
    (file, map.expect("a mapping"))
}

#[test]
fn p10_truncated_memory_reads_as_zeros_takes_writes_and_marks_only_its_own_range() {
    let (file, map) = mapped(4);
    let (_other_file, other) = mapped(1);
    let guarded = guard(map.as_ptr(), map.size()).expect("a guard");
    let other_guard = guard(other.as_ptr(), other.size()).expect("a guard");
    let memory = map.as_volatile_slice();
    memory.write_obj(7u64, PAGE).expect("a write");
    assert!(!guarded.vanished());
    ftruncate(&file, 0).expect("a truncation");
    assert_eq!(memory.read_obj::<u64>(PAGE).expect("a read"), 0);
    memory.write_obj(9u64, 2 * PAGE).expect("a write");
    assert_eq!(memory.read_obj::<u64>(2 * PAGE).expect("a read"), 9);
    assert!(guarded.vanished() && !other_guard.vanished());
}

#[test]
fn p10_a_punched_hole_is_no_fault_on_base_pages_and_many_threads_survive_a_truncation() {
    let (file, map) = mapped(64);
    let guarded = guard(map.as_ptr(), map.size()).expect("a guard");
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, PAGE as u64).expect("a hole");
    let memory = map.as_volatile_slice();
    assert_eq!(memory.read_obj::<u64>(0).expect("a read"), 0);
    assert!(!guarded.vanished(), "the kernel fills a hole of base pages with zeros by itself");
    ftruncate(&file, 0).expect("a truncation");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..64)
                    .for_each(|page| map.as_volatile_slice().write_obj(1u64, page * PAGE).expect("a write"));
            });
        }
    });
    assert!(guarded.vanished());
}

#[test]
fn a_slot_is_free_again_after_its_guard_and_says_nothing_of_its_last_range() {
    let (file, map) = mapped(1);
    let first = guard(map.as_ptr(), map.size()).expect("a guard");
    ftruncate(&file, 0).expect("a truncation");
    map.as_volatile_slice().write_obj(1u8, 0).expect("a write");
    assert!(first.vanished());
    drop(first);
    let (_file, map) = mapped(1);
    assert!(!guard(map.as_ptr(), map.size()).expect("a guard").vanished());
}

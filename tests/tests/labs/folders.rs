//! Whose folders are whose: vnet lists, takes and removes what it made, whatever the user has beside it or put into it.

use crate::{
    common::{Lab, topology},
    process::{Background, eventually, in_role},
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

fn private(path: &Path) -> PathBuf {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).unwrap();
    path.to_owned()
}

/// All paths below `folder`, sorted.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let folders: Vec<_> = paths.iter().filter(|path| path.is_dir()).cloned().collect();
    paths.extend(folders.iter().flat_map(|folder| tree(folder)));
    paths.sort();
    paths
}

#[test]
fn a_users_own_folder_is_no_lab_whatever_is_in_it() {
    let lab = Lab::new();
    let keys = private(&lab.runtime().join(".ssh"));
    let photos = private(&lab.runtime().join("photos"));
    fs::write(keys.join("id"), "precious").unwrap();
    fs::write(photos.join("lock"), "precious").unwrap();
    let before = tree(&lab.runtime());

    assert_eq!(lab.json(&["ls"]).as_array().unwrap().len(), 0);
    lab.expect(3, &["down"]);
    lab.expect(3, &["--name", "photos", "down"]);
    let (_, err) = lab.expect(4, &["--name", "photos", "up", "-d", &topology("hello.vnet.yaml")]);
    assert!(err.contains("did not make it"), "{err}");
    lab.expect(4, &["--name", "photos", "serve"]);
    assert_eq!(tree(&lab.runtime()), before, "nothing is written, and nothing removed");

    // A lab lives and dies beside them, and the folder that the user made stays.
    lab.expect(0, &["up", "-d", &topology("hello.vnet.yaml")]);
    lab.expect(0, &["down"]);
    lab.expect(0, &["test", &topology("hello.vnet.yaml")]);
    assert_eq!(tree(&lab.runtime()), before);
}

#[test]
fn an_empty_folder_of_the_users_own_outlives_its_labs() {
    let lab = Lab::new();
    private(&lab.runtime());
    lab.expect(0, &["test", &topology("hello.vnet.yaml")]);
    lab.expect(0, &["up", "-d", &topology("hello.vnet.yaml")]);
    lab.expect(0, &["down"]);
    assert!(lab.runtime().exists());
    assert_eq!(tree(&lab.runtime()), [""; 0].map(PathBuf::from));
}

#[test]
fn a_name_that_leads_elsewhere_is_refused_by_every_verb() {
    let lab = Lab::new();
    let victim = private(&lab.runtime().with_file_name("victim"));
    fs::write(victim.join("precious"), "").unwrap();
    let file = topology("hello.vnet.yaml");
    for name in [victim.to_str().unwrap(), "../victim", "..", ".", "", ".ssh", "Office"] {
        for verb in
            [&["up", "-d", &file][..], &["serve"], &["down"], &["logs", "controller"], &["show", "ports"]]
        {
            let (_, err) = lab.expect(2, &[&["--name", name], verb].concat());
            assert!(err.contains("cannot be a lab's name"), "{name:?} {verb:?}: {err}");
        }
    }
    let (_, err) = lab.expect_with(2, &[("VNET_NAME", "../victim")], &["up", "-d", &file]);
    assert!(err.contains("cannot be a lab's name"), "{err}");
    assert!(!lab.runtime().exists() && victim.join("precious").exists());
}

#[test]
fn what_a_user_puts_into_a_labs_folder_stays_and_is_told() {
    let lab = Lab::new();
    let notes = lab.runtime().join("hello/notes.txt");
    for _round in 0..2 {
        lab.expect(0, &["up", "-d", &topology("hello.vnet.yaml")]);
        fs::write(&notes, "precious").unwrap();
        let (out, err) = lab.expect(0, &["down"]);
        assert!(out.contains("hello is down"), "{out}");
        assert!(err.contains("is kept") && err.contains("notes.txt"), "{err}");
        assert_eq!(fs::read_to_string(&notes).unwrap(), "precious");
        assert_eq!(lab.json(&["ls"]).as_array().unwrap().len(), 0, "it is no lab");
    }
}

#[test]
fn down_works_past_a_controller_that_does_not_answer() {
    let stop = |lab: &Lab| {
        let controller = in_role(lab, "serve").pop().expect("a controller");
        kill_process(Pid::from_raw(controller.try_into().unwrap()).unwrap(), Signal::STOP).unwrap();
    };
    let unlink = |lab: &Lab| fs::remove_file(lab.runtime().join("hello/api.sock")).unwrap();
    let ways: [&dyn Fn(&Lab); 2] = [&stop, &unlink];
    for silence in ways {
        let lab = Lab::new();
        lab.expect(0, &["up", "-d", &topology("hello.vnet.yaml")]);
        silence(&lab);
        assert_eq!(lab.json(&["ls"])[0]["state"], "silent");
        let (out, err) = lab.expect(0, &["down"]);
        assert!(out.contains("hello is down") && err.contains("does not answer"), "{out}{err}");
        lab.assert_gone();
    }
}

#[test]
fn a_list_of_processes_that_is_garbage_is_in_nobodys_way() {
    for verb in [&["down"][..], &["up", "-d"]] {
        let lab = Lab::new();
        let file = topology("hello.vnet.yaml");
        lab.expect(0, &["up", "-d", &file]);
        let controller = in_role(&lab, "serve").pop().expect("a controller");
        crate::process::kill(controller);
        fs::write(lab.runtime().join("hello/processes.json"), "[{\"role\":").unwrap();
        let all = if verb == ["down"] { vec!["down"] } else { vec!["up", "-d", &file] };
        lab.expect(0, &all);
        if verb != ["down"] {
            assert_eq!(in_role(&lab, "vswitchd").len(), 1, "the old switch is gone");
            lab.expect(0, &["down"]);
        }
        lab.assert_gone();
    }
}

#[test]
fn who_finds_a_lab_up_watches_it_and_does_not_end_it() {
    let lab = Lab::new();
    let file = topology("hello.vnet.yaml");
    let mut first = Background::start(&lab, &["up", &file]);
    first.prints("hello is up");
    let mut second = Background::start(&lab, &["up", &file]);
    second.prints("the lab goes on");
    second.signal(Signal::INT);
    let (status, out, err) = second.end();
    assert_eq!(status.code(), Some(0), "{out}{err}");
    assert!(out.contains("hello goes on"), "{out}");
    assert_eq!(lab.json(&["ls"])[0]["state"], "running");

    // And who watches is told when somebody takes it down.
    let mut watching = Background::start(&lab, &["up", &file]);
    watching.prints("the lab goes on");
    first.signal(Signal::INT);
    assert!(first.end().1.contains("hello is down"));
    let (status, out, _) = watching.end();
    assert_eq!((status.code(), out.contains("hello was taken down")), (Some(0), true), "{out}");
    lab.assert_gone();
}

#[test]
fn a_runtime_folder_with_a_long_path_is_as_good_as_any() {
    let lab = Lab::in_a_folder_named(&"long".repeat(40));
    lab.expect(0, &["test", &topology("hello.vnet.yaml")]);
    lab.assert_gone();
}

#[test]
fn a_controller_that_cannot_start_says_why_and_leaves_nothing() {
    let lab = Lab::new();
    // A folder where its list of processes is to be: the controller cannot write it, and ends.
    let up = Background::start(&lab, &["--name", "hello", "serve"]);
    eventually("the lab's folder", || lab.runtime().join("hello/api.sock").exists().then_some(()));
    crate::process::kill(up.pid());
    fs::create_dir(lab.runtime().join("hello/processes.new")).unwrap();
    let (_, err) = lab.expect(1, &["up", "-d", &topology("hello.vnet.yaml")]);
    assert!(err.contains("controller of lab hello") && err.contains("processes.json"), "{err}");
}

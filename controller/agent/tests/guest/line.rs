//! The line itself: noise, terminals, several questions at a time, and its end.

use crate::lab::{AGENT, Guest, PATIENCE, ready};
use probe::{
    Answer, FromGuest, Request, VERSION,
    answer::{End, Refusal},
    ask::{Exec, Hello, Service, Transport},
};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};
use std::{collections::HashSet, fs::File, process::Command};

fn hello() -> Request {
    Request::Hello(Hello { version: VERSION, name: "web1".into() })
}

fn cat(stdin: Vec<u8>) -> Request {
    Request::Exec(Exec { argv: vec!["cat".into()], stdin, timeout: PATIENCE })
}

fn sh(script: &str) -> Request {
    Request::Exec(Exec {
        argv: ["sh", "-c", script].map(Into::into).to_vec(),
        stdin: Vec::new(),
        timeout: PATIENCE,
    })
}

#[test]
fn a_guest_says_who_it_is() {
    let mut guest = Guest::alone();
    let ready = ready(guest.ask(hello()));
    assert_eq!(ready.version, VERSION);
    assert_eq!(ready.name, rustix::system::uname().nodename().to_string_lossy());
    assert_eq!(ready.interfaces, [], "loopback is no interface of the lab");
    let stranger = Request::Hello(Hello { version: VERSION + 1, name: "web1".into() });
    assert_eq!(guest.ask(stranger), Answer::Refused(Refusal::OtherVersion(VERSION)));
}

#[test]
fn noise_between_messages_costs_nothing() {
    let mut guest = Guest::alone();
    let overlong = vec![b'x'; 200_000];
    for noise in [&b"[    1.234567] random: crng init done\r\n"[..], &[0, 1, 0, 0, 0xff, 0], &overlong] {
        guest.write(noise);
        ready(guest.ask(hello()));
    }
}

#[test]
fn a_slow_question_does_not_hold_up_a_quick_one() {
    let mut guest = Guest::alone();
    let slow = guest.begin(sh("sleep 2; echo slow"));
    let quick = guest.begin(Request::Report);
    assert_eq!(guest.answer(), (quick, Answer::Report(Vec::new())));
    let (id, Answer::Exec(executed)) = guest.answer() else { panic!("it was a program") };
    assert_eq!((id, executed.stdout.as_slice()), (slow, &b"slow\n"[..]));
}

#[test]
fn too_many_questions_at_a_time_are_refused_and_the_others_answered() {
    let mut guest = Guest::alone();
    let asked: HashSet<_> = (0..100).map(|_| guest.begin(sh("sleep 2"))).collect();
    let mut answered = HashSet::new();
    let mut busy = 0;
    for _ in 0..100 {
        let (id, answer) = guest.answer();
        answered.insert(id);
        match answer {
            Answer::Refused(Refusal::Busy) => busy += 1,
            Answer::Exec(executed) => assert_eq!(executed.end, End::Exited(0)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answered, asked);
    assert!((1..100).contains(&busy), "{busy} were refused");
    ready(guest.ask(hello()));
}

#[test]
fn a_serial_port_passes_every_byte_as_it_is() {
    let asker = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&asker).and_then(|()| unlockpt(&asker)).expect("it is ours");
    let device = ptsname(&asker, Vec::new()).expect("it has a name").into_string().expect("of ASCII");
    // As a kernel leaves it: lines, echo, signals. Only the agent may change that.
    let settings = tcgetattr(&asker).expect("it is a terminal");
    tcsetattr(&asker, OptionalActions::Now, &settings).expect("it is a terminal");
    let child = Command::new(AGENT).arg(device).spawn().expect("the agent starts");
    let line = File::from(asker);
    let from = line.try_clone().expect("a descriptor is left");
    let mut guest = Guest::on(child, line, from);
    assert!(matches!(guest.hear(), FromGuest::Ready(_)));
    let every_byte: Vec<u8> = (0..=255).collect();
    let Answer::Exec(executed) = guest.ask(cat(every_byte.repeat(8))) else { panic!("cat runs") };
    assert_eq!(executed.stdout, every_byte.repeat(8));
    assert_eq!(guest.ask(Request::Shutdown), Answer::Done);
    assert!(guest.end().success());
}

#[test]
fn a_shutdown_is_answered_and_done() {
    let mut guest = Guest::alone();
    let service = Service { transport: Transport::Tcp, port: 4000 };
    assert_eq!(guest.ask(Request::Listen(service)), Answer::Done);
    assert_eq!(guest.ask(Request::Shutdown), Answer::Done);
    assert!(guest.end().success());
}

//! The choice of the instruction set: `Isa::run`, and the variable `NANPROOF_ISA` in a process of its own.

use std::process::{Command, Output};

use nanproof::{Error, Isa, sum};

/// What the child processes run: prints the active instruction set, or the error of a call.
#[test]
fn child() {
    match Isa::active() {
        Ok(isa) => {
            assert_eq!(sum(&[1.0_f32, 2.0]), Ok(3.0));
            println!("active: {isa}");
        }
        Err(error) => {
            assert_eq!(sum(&[1.0_f32, 2.0]), Err(error.clone()));
            assert_eq!(Isa::Baseline.run(|| sum(&[1.0_f32, 2.0])), Ok(3.0), "a choice in the program overrides it");
            println!("error: {error}");
        }
    }
}

fn run_with(name: Option<&str>) -> String {
    let mut command = Command::new(std::env::current_exe().expect("this test has a file"));
    command
        .args(["--exact", "child", "--nocapture"])
        .env_remove("NANPROOF_ISA")
        .envs(name.map(|name| ("NANPROOF_ISA", name)));
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{name:?}: {text}{}", String::from_utf8_lossy(&stderr));
    text
}

#[test]
fn the_best_is_the_default() {
    let best = Isa::available().last().expect("the baseline at least");
    assert!(run_with(None).contains(&format!("active: {best}\n")));
}

#[test]
fn each_can_be_forced() {
    for isa in [Isa::Baseline, Isa::Avx2, Isa::Avx512] {
        let text = run_with(Some(&isa.to_string()));
        if Isa::available().contains(&isa) {
            assert!(text.contains(&format!("active: {isa}\n")), "{text}");
        } else {
            let start = format!("error: instruction set {isa}: this CPU does not have it; it has baseline");
            assert!(text.contains(&start), "{text}");
        }
    }
}

#[test]
fn an_unknown_name_is_an_error() {
    let all = Isa::available().iter().map(Isa::to_string).collect::<Vec<_>>().join(", ");
    for name in ["nonsense", "", "AVX2", "avx2 "] {
        let text = run_with(Some(name));
        assert!(text.contains(&format!("error: {name:?} is no instruction set; this CPU has {all}\n")), "{text}");
        assert_eq!(name.parse::<Isa>(), Err(Error::UnknownIsa(name.into())));
    }
}

#[test]
fn run_restores_what_was_active() {
    let Ok(before) = Isa::active() else { return }; // the variable is set to nonsense
    for &outer in Isa::available() {
        outer
            .run(|| {
                for &inner in Isa::available() {
                    assert_eq!(inner.run(Isa::active), Ok(inner));
                    assert_eq!(Isa::active(), Ok(outer));
                    assert_eq!(inner.run(|| Err::<(), _>(Error::Isa(inner))), Err(Error::Isa(inner)));
                    assert_eq!(Isa::active(), Ok(outer), "after an error");
                }
                Ok(())
            })
            .expect("all are available");
        let caught = std::panic::catch_unwind(|| outer.run(|| -> nanproof::Result<()> { panic!("on purpose") }));
        assert!(caught.is_err());
        assert_eq!(Isa::active(), Ok(before), "after a panic");
    }
}

#[test]
fn another_thread_is_not_affected() {
    let Ok(before) = Isa::active() else { return };
    let elsewhere = Isa::Baseline.run(|| std::thread::spawn(Isa::active).join().expect("no panic"));
    assert_eq!(elsewhere, Ok(before));
}

#[test]
fn what_the_cpu_does_not_have_is_an_error() {
    for isa in [Isa::Avx2, Isa::Avx512] {
        let mut ran = false;
        let result = isa.run(|| {
            ran = true;
            Ok(())
        });
        let available = Isa::available().contains(&isa);
        assert_eq!((result, ran), (if available { Ok(()) } else { Err(Error::Isa(isa)) }, available));
    }
}

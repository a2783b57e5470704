//! A store that cannot be written or read: the object is named, and what was committed stays as it is.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use fluvial_tests::child::{Process, Spec};
use fluvial_tests::history::compare;
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;

use super::{KEPT, SOON, assert_refused, completed, name_of, objects};

/// A disk of its own for a stage's store, which only processes see that are started there.
struct Disk {
    holder: Process,
    path: PathBuf,
}

impl Disk {
    /// A small one. It is gone with the process that holds it, and so with the test.
    fn of(stage: &Stage) -> Self {
        let path = stage.store();
        fs::create_dir(&path).unwrap();
        let mount = r#"mount -t tmpfs -o size=4m none "$0" && echo mounted && exec sleep infinity"#;
        // Who is not root may mount within a user namespace, where the system lets everybody have one.
        let mut args = if rustix::process::geteuid().is_root() { vec![] } else { vec!["--map-root-user".into()] };
        args.extend(["--mount", "sh", "-c", mount].map(Into::into));
        args.push(path.clone().into_os_string());
        let log = stage.folder().join("disk");
        let spec = Spec { name: "a disk".to_owned(), program: "unshare".into(), args, env: Vec::new(), log };
        let holder = Process::start(spec).unwrap();
        holder.wait_for_line("mounted", SOON).unwrap();
        Self { holder, path }
    }

    /// What starts a process that sees the disk, to be followed by its program.
    fn entrance(&self) -> Vec<String> {
        let mut words = vec!["nsenter".to_owned(), format!("--target={}", self.holder.pid()), "--mount".to_owned()];
        if !rustix::process::geteuid().is_root() {
            words.extend(["--user", "--preserve-credentials"].map(str::to_owned));
        }
        words.push("--".to_owned());
        words
    }

    fn remount(&self, option: &str) {
        let entrance = self.entrance();
        let mut remount = Command::new(&entrance[0]);
        remount.args(&entrance[1..]).args(["mount", "-o", &format!("remount,{option}")]).arg(&self.path);
        let start = std::time::Instant::now();
        // It cannot be done in the middle of a write.
        while !remount.status().unwrap().success() {
            assert!(start.elapsed() < SOON, "the disk cannot be remounted as {option}");
        }
    }

    /// A file of the disk, as seen from outside.
    fn outside(&self, name: &str) -> PathBuf {
        let inside = self.path.join(name);
        Path::new(&format!("/proc/{}/root", self.holder.pid())).join(inside.strip_prefix("/").unwrap())
    }

    fn fill(&self) {
        let mut filler = fs::File::create(self.outside("filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.outside("filler")).unwrap();
    }
}

fn on_a_disk() -> (Stage, Disk) {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let disk = Disk::of(&stage);
    let entrance = disk.entrance();
    (stage.with_launcher(entrance), disk)
}

/// The rest of the input goes through, and each record of the output is there once.
fn goes_on(stage: &Stage) {
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    assert_eq!(stage.table().unwrap(), stage.table_of_input().unwrap());
    let verdict = compare(&stage.replay("--workers 2").unwrap(), &stage.seen().unwrap());
    assert!(verdict.is_clean(), "{verdict}");
}

#[test]
fn a_full_store_ends_the_run_after_the_patience_and_goes_on_when_there_is_space() {
    let (stage, disk) = on_a_disk();
    let often = format!("{KEPT} --patience 2s --checkpoint-every 1h");
    let job = stage.start(&format!("{often} --no-restart")).unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    disk.fill();
    let before = stage.visible().unwrap();
    stage.feed(100..200).unwrap();
    assert_refused(
        &job.finish(MOST).unwrap(),
        7,
        &["/journal/", "the store is full: free some space", "No space left"],
    );
    assert_eq!(stage.visible().unwrap(), before, "something is visible that the journal does not hold");
    let again = stage.start(&often).unwrap().finish(MOST).unwrap();
    assert_refused(&again, 7, &["/journal/", "the store is full: free some space"]);
    assert_eq!(stage.visible().unwrap(), before);
    disk.free();
    goes_on(&stage);
}

#[test]
fn a_job_whose_store_is_full_for_a_time_goes_on_by_itself() {
    let (stage, disk) = on_a_disk();
    let job = stage.start(&format!("{KEPT} --patience 1s --checkpoint-every 200ms")).unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    disk.fill();
    stage.feed(100..200).unwrap();
    job.process().wait_for_line("starting the next", MOST).unwrap();
    disk.free();
    stage.wait_until_caught_up(&job).unwrap();
    assert_eq!(job.terminate(SOON).unwrap().code, Some(0));
    goes_on(&stage);
}

#[test]
fn a_store_that_is_mounted_to_be_read_only_ends_the_run_at_once() {
    let (stage, disk) = on_a_disk();
    let job = stage.start(&format!("{KEPT} --checkpoint-every 1h")).unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    disk.remount("ro");
    let before = stage.visible().unwrap();
    stage.feed(100..200).unwrap();
    let parts = ["/journal/", "let the user that runs the job read and write there", "Read-only file system"];
    assert_refused(&job.finish(SOON).unwrap(), 2, &parts);
    assert_refused(&stage.start(KEPT).unwrap().finish(SOON).unwrap(), 2, &parts);
    assert_eq!(stage.visible().unwrap(), before, "something is visible that the journal does not hold");
    disk.remount("rw");
    goes_on(&stage);
}

#[test]
fn a_store_that_may_not_be_written_ends_the_run_at_once() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    // Root without its privileges is a user like any other.
    let launcher: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"],
        false => &["env"],
    };
    let stage = stage.with_launcher(launcher.iter().copied());
    fs::create_dir(stage.store()).unwrap();
    Command::new("chmod").arg("0555").arg(stage.store()).status().unwrap();
    let refused = stage.start("").unwrap().finish(SOON).unwrap();
    let store = stage.store();
    let parts = [store.to_str().unwrap(), "let the user that runs the job read and write there", "Permission denied"];
    assert_refused(&refused, 2, &parts);
    Command::new("chmod").arg("0755").arg(stage.store()).status().unwrap();
    stage.feed(0..50).unwrap();
    goes_on(&stage);
}

#[test]
fn a_store_that_goes_away_ends_the_run_and_is_named() {
    for (folder, object, why) in [("journal", "/journal/", "cannot "), ("state", "/state/orders/", "state of 'orders'")]
    {
        let stage = Stage::new(Subject::Orders, 2).unwrap();
        let job = stage.start(&format!("{KEPT} --patience 2s --no-restart --checkpoint-every 1s")).unwrap();
        stage.feed(0..100).unwrap();
        stage.wait_for_more_than(0, &job).unwrap();
        let folder = stage.store().join(stage.name()).join(folder);
        stage.wait_until(&job, "a checkpoint", || Ok(folder.exists())).unwrap();
        // A file where the folder was.
        let kept = stage.folder().join("kept");
        fs::rename(&folder, &kept).unwrap();
        fs::write(&folder, "").unwrap();
        stage.feed(100..200).unwrap();
        assert_refused(&job.finish(SOON).unwrap(), 7, &[object, why]);
        // Nothing was made visible that the journal does not hold.
        fs::remove_file(&folder).unwrap();
        fs::rename(&kept, &folder).unwrap();
        stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
        stage.check().unwrap();
    }
}

/// Does something to a file.
type Damage = fn(&Path);

const DAMAGES: [(&str, Damage); 4] = [
    ("cut short", |file| {
        let half = fs::metadata(file).unwrap().len() / 2;
        OpenOptions::new().write(true).open(file).unwrap().set_len(half).unwrap();
    }),
    ("emptied", |file| fs::write(file, "").unwrap()),
    ("flipped", |file| {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(file, bytes).unwrap();
    }),
    ("deleted", |file| fs::remove_file(file).unwrap()),
];

#[test]
fn a_damaged_object_is_named_and_nothing_is_lost_when_it_is_put_back() {
    let stage = completed(100);
    // The newest record of the journal, one before it that has a tick's input, the manifest, and a run.
    let journal = objects(&stage, "journal");
    let has_input = |path: &&PathBuf| fs::read_to_string(path).unwrap().contains(r#""ranges":[{"#);
    let mut all = vec![journal.last().unwrap().clone()];
    all.extend(objects(&stage, "checkpoints").pop());
    all.extend(objects(&stage, "state").pop());
    assert_eq!(all.len(), 3);
    let before = stage.visible().unwrap();
    for object in &all {
        let whole = fs::read(object).unwrap();
        for (what, damage) in DAMAGES {
            // Without its newest record a journal is an older one: `a_store_that_was_put_back_to_an_older_state`.
            if what == "deleted" && object == &all[0] {
                continue;
            }
            damage(object);
            let refused = stage.start("--stop-at-end --workers 2").unwrap().finish(MOST).unwrap();
            let file = object.file_name().unwrap().to_str().unwrap();
            println!("{what}: {}", name_of(&stage, object));
            assert_refused(&refused, 11, &[file]);
            fs::write(object, &whole).unwrap();
        }
    }
    assert_eq!(stage.visible().unwrap(), before, "a run that was refused has written something");
    stage.feed(100..200).unwrap();
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    stage.check().unwrap();
    // A record in the middle of a journal that is read from its beginning.
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let job = stage.start(&format!("{KEPT} --checkpoint-every 1h")).unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    stage.feed(100..150).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    job.job().kill_all().unwrap();
    let first = objects(&stage, "journal").iter().find(has_input).unwrap().clone();
    let whole = fs::read(&first).unwrap();
    for (what, damage) in DAMAGES {
        damage(&first);
        let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
        println!("{what}");
        assert_refused(&refused, 11, &["journal"]);
        fs::write(&first, &whole).unwrap();
    }
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    stage.check().unwrap();
}

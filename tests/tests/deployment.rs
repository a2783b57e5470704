//! The files in `engine/deploy` are valid for the systems that read them, and what they tell the job to do, it can do.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fluvial_kafka_embedded::{Broker, Config};
use fluvial_tests::child::{Folder, Process, Spec};
use fluvial_tests::client::{Endpoint, Isolation, Message};
use fluvial_tests::deployment::{Copy, folder, kubernetes, nomad};
use fluvial_tests::http::{free_address, get};
use fluvial_tests::job::binary;
use rustix::process::Signal;

fn read(name: &str) -> String {
    let path = folder().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn manifests() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join("kubernetes")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn orders(args: &[&str]) -> String {
    let output = Command::new(binary("orders").unwrap()).args(args).output().unwrap();
    assert!(output.status.success(), "orders {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The long options that a text names.
fn options(text: &str) -> BTreeSet<String> {
    let of_option = |c: char| c.is_ascii_lowercase() || c == '-';
    let words = text.split(|c: char| c.is_whitespace() || "[](),\"'`=".contains(c));
    let options = words.filter_map(|word| word.strip_prefix("--"));
    options
        .filter(|name| name.starts_with(char::is_alphabetic) && name.chars().all(of_option))
        .map(str::to_owned)
        .collect()
}

/// The job knows all options that it is given, and has the time that it may take to stop.
fn can_run(copies: &[Copy]) {
    let known = options(&orders(&["run", "--help"]));
    let [copy] = copies else { panic!("one copy in {copies:?}") };
    let (command, args) = copy.args.split_first().unwrap();
    assert_eq!(command, "run");
    let given = options(&args.join(" "));
    assert!(given.is_subset(&known), "`orders run` does not have {:?}", given.difference(&known));
    let stop_within = args.iter().find_map(|arg| arg.strip_prefix("--stop-within=")).unwrap();
    let stop_within: u64 = stop_within.strip_suffix('s').unwrap().parse().unwrap();
    assert!(copy.grace >= stop_within + 20, "{} s are too short for a stop within {stop_within} s", copy.grace);
}

#[test]
fn kubernetes_objects_are_valid_and_fit_together() {
    can_run(&kubernetes(&manifests()).unwrap());
}

#[test]
fn a_fault_in_an_object_is_found() {
    let wrong = Folder::new("fluvial-deployment-").unwrap();
    for (file, right, fault) in [
        ("job.yaml", "maxSurge", "maxSurgee"),
        ("job.yaml", "tolerationSeconds: 10", "tolerationSeconds: ten"),
        ("job.yaml", "port: http", "port: https"),
        ("job.yaml", "policy/v1\n", "policy/v1beta1\n"),
        ("hpa.yaml", "averageValue: 100k", "averageValue: [100k]"),
        ("keda.yaml", "maxReplicaCount", "maxReplicas"),
    ] {
        for path in manifests() {
            let text = fs::read_to_string(&path).unwrap();
            let text = if path.ends_with(file) { text.replacen(right, fault, 1) } else { text };
            fs::write(wrong.path().join(path.file_name().unwrap()), text).unwrap();
        }
        let files: Vec<_> = manifests().iter().map(|path| wrong.path().join(path.file_name().unwrap())).collect();
        assert!(kubernetes(&files).is_err(), "{fault} is not found in {file}");
    }
    let job = wrong.path().join("job.nomad.hcl");
    for (right, fault) in [("kill_timeout =", "stop_timeout ="), ("\"5m\"", "\"soon\""), ("restart {", "restart = {")] {
        fs::write(&job, read("nomad/job.nomad.hcl").replacen(right, fault, 1)).unwrap();
        assert!(nomad(&job).is_err(), "{fault} is not found in the job for Nomad");
    }
}

#[test]
fn the_nomad_job_is_valid() {
    can_run(&nomad(&folder().join("nomad/job.nomad.hcl")).unwrap());
}

#[test]
fn the_systemd_unit_is_valid() {
    let unit = read("systemd/fluvial@.service");
    let given = unit.lines().skip_while(|line| !line.starts_with("ExecStart=")).take(2).collect::<Vec<_>>().join(" ");
    let (given, known) = (options(&given), options(&orders(&["run", "--help"])));
    assert!(
        given.contains("join") && given.is_subset(&known),
        "`orders run` does not have {:?}",
        given.difference(&known)
    );
    // systemd looks for the program, which is elsewhere here.
    let place = Folder::new("fluvial-unit-").unwrap();
    let programs = binary("orders").unwrap().parent().unwrap().display().to_string();
    let path = place.path().join("fluvial@orders.service");
    fs::write(&path, unit.replace("/opt/fluvial", &programs)).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_job_has_the_options_that_the_guide_names() {
    let commands = ["run", "check", "status"];
    let known: BTreeSet<_> = commands.iter().flat_map(|command| options(&orders(&[command, "--help"]))).collect();
    let of_others = ["build-arg", "ca", "describe", "from-file", "now"].map(str::to_owned).into();
    let given: BTreeSet<_> = options(&read("README.md")).difference(&of_others).cloned().collect();
    assert!(given.len() > 10 && given.is_subset(&known), "the job does not have {:?}", given.difference(&known));
}

/// The names of metrics that a text has.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '_');
    words.filter(|word| word.starts_with("fluvial_")).map(str::to_owned).collect()
}

#[test]
fn a_copy_with_the_options_of_the_deployment_runs_the_job() {
    let folder = Folder::new("fluvial-copy-").unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let broker = Broker::start(Config::default()).unwrap();
    broker.create_topic("orders", 2).unwrap();
    let endpoint = Endpoint::new(broker.bootstrap());
    let order = r#"{"order_id":7,"customer":"c","region":"eu","product":"p","quantity":2,"price_cents":5,"at":0}"#;
    endpoint.writer(&[]).unwrap().write(&[Message::text("orders", 0, "7", order)]).unwrap();
    fs::write(file("kafka.properties"), format!("bootstrap.servers={}\n", endpoint.bootstrap())).unwrap();
    fs::write(file("key"), orders(&["cluster-key", "new"])).unwrap();
    fs::set_permissions(file("key"), Permissions::from_mode(0o600)).unwrap();

    let copy = kubernetes(&manifests()).unwrap().remove(0);
    let (listen, http) = (free_address().unwrap(), free_address().unwrap());
    let here = |arg: &String| {
        let arg = arg.replace("s3://bucket/fluvial", &file("store")).replace("$(POD_IP)", "127.0.0.1");
        let arg = arg.replace("/etc/fluvial/cluster/key", &file("key"));
        let arg = arg.replace("/etc/fluvial/kafka/kafka.properties", &file("kafka.properties"));
        OsString::from(arg.replace(":7401", &format!(":{}", listen.port())).replace("0.0.0.0:7480", &http.to_string()))
    };
    let spec = Spec {
        name: "a copy of orders".to_owned(),
        program: binary("orders").unwrap(),
        args: copy.args.iter().map(here).chain(["--checkpoint-every", "1s"].map(OsString::from)).collect(),
        env: Vec::new(),
        log: folder.path().join("log"),
    };
    let job = Process::start(spec).unwrap();
    job.wait_for_line("the job is open", Duration::from_secs(60)).unwrap();
    for path in copy.probes.values() {
        let (status, said) = get(http, path).unwrap();
        assert_eq!(status, 200, "{path}: {said}");
    }
    // The process that runs the job says each second how far it is.
    let used: BTreeSet<_> = manifests().iter().flat_map(|path| metrics(&fs::read_to_string(path).unwrap())).collect();
    assert!(used.contains("fluvial_lag_records"), "{used:?}");
    // The page has what the table lists and nothing else. A folder charges for no requests.
    let table = read("metrics.md");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<_> = rows.map(str::to_owned).collect();
    assert!(used.is_subset(&documented), "{used:?}");
    let free: BTreeSet<_> = ["fluvial_node_store_requests_total".to_owned()].into();
    let begun = Instant::now();
    loop {
        let (status, said) = get(http, "/metrics").unwrap();
        let described = said.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let live: BTreeSet<_> = described.map(str::to_owned).collect();
        assert!(live.is_subset(&documented), "{:?} are not documented", live.difference(&documented));
        let missing: BTreeSet<_> = documented.difference(&live).cloned().collect();
        if status == 200 && missing == free {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{missing:?} are not among the metrics: {said}");
        std::thread::sleep(Duration::from_millis(100));
    }
    job.signal(Signal::TERM).unwrap();
    let status = job.wait(Duration::from_secs(copy.grace)).unwrap();
    assert!(status.success(), "{status}: {}", job.log_end());
    assert_eq!(endpoint.read("revenue", Isolation::Committed).unwrap().len(), 1);
}

/// The instructions of the Dockerfile, a line each.
fn dockerfile() -> Vec<(String, String)> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap()).map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
}

/// Where there is no container engine and no registry, the Dockerfile's commands are run on this machine's own system, which
/// has what the first image has: a job that is built, and Debian. The second image is empty but for what is copied.
#[test]
fn the_image_has_all_that_the_job_needs() {
    let instructions = dockerfile();
    let of = |name: &str| -> Vec<&str> {
        instructions.iter().filter(|(of, _)| of == name).map(|(_, rest)| rest.as_str()).collect()
    };
    let [build, collect] = of("RUN")[..] else { panic!("two commands in {instructions:?}") };
    assert!(build.starts_with("cargo build --release --locked -p \"$JOB\""), "{build}");
    assert_eq!(of("FROM")[1], "scratch");
    assert_eq!(of("COPY"), [". .", "--from=build /image /"]);
    let program: Vec<String> = serde_json::from_str(of("ENTRYPOINT")[0]).unwrap();
    let root = Folder::new("fluvial-image-").unwrap();
    let broker = Broker::start(Config::default()).unwrap();
    broker.create_topic("orders", 2).unwrap();
    let endpoint = Endpoint::new(broker.bootstrap());
    let order = r#"{"order_id":7,"customer":"c","region":"eu","product":"p","quantity":2,"price_cents":5,"at":0}"#;
    endpoint.writer(&[]).unwrap().write(&[Message::text("orders", 0, "7", order)]).unwrap();
    // $1 is the folder, $2 the job, $3 the command, $4 the user, and what follows is run in the image.
    let script = r#"
        set -e
        cd "$1"
        for name in bin sbin lib lib64; do
            if [ -L "/$name" ]; then cp -P "/$name" .; else mkdir "$name" && mount --bind "/$name" "$name"; fi
        done
        for name in usr etc dev; do mkdir "$name" && mount --bind "/$name" "$name"; done
        mkdir -p source/target/release && cp "$2" source/target/release/orders
        chroot . env -i PATH=/usr/bin:/bin JOB=orders sh -ec "cd /source; $3"
        cd image
        # What every container engine adds.
        mkdir proc dev && mount -t proc proc proc && mount --bind /dev dev
        for name in hosts resolv.conf; do touch "etc/$name" && mount --bind "/etc/$name" "etc/$name"; done
        exec chroot --userspec="$4" . "${@:5}""#;
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "bash", "-c", script, "bash"])
        .arg(root.path())
        .arg(binary("orders").unwrap())
        .args([collect, of("USER")[0], &program[0]])
        .args([
            "run",
            "--brokers",
            &endpoint.bootstrap().replace("127.0.0.1", "localhost"),
            "--input",
            "orders",
            "--output",
            "revenue",
        ])
        .args(["--store", "/tmp/store", "--processes", "2", "--stop-at-end"])
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert_eq!(endpoint.read("revenue", Isolation::Committed).unwrap().len(), 1, "{said}");
    let image = root.path().join("image");
    let authorities = fs::read_to_string(image.join("etc/ssl/certs/ca-certificates.crt")).unwrap();
    assert!(authorities.contains("BEGIN CERTIFICATE"), "the image has no certificates of authorities");
    let size = size_of(&image);
    // The program is not optimised here.
    assert!(size < 100 << 20, "the image has {size} bytes");
}

/// The bytes of the files in a folder.
fn size_of(folder: &Path) -> u64 {
    let sizes = fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() { size_of(&entry.path()) } else { metadata.len() }
    });
    sizes.sum()
}

//! What the Dockerfile puts into the image is enough: a root directory with nothing else in it, a user without rights,
//! and a commit that comes over https and goes through kustomize into a real cluster.
//!
//! No container daemon is needed: the packages that the Dockerfile names are copied from this machine, with the
//! libraries that their programs are linked to, and the daemon runs there by `chroot`. That takes root; without it the
//! test says so and does nothing.

use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, config_map};
use crate::support::git_https::{Access, GitServer};
use crate::support::rendering::kustomize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use windlass::api::delivery::Phase;

/// What the Dockerfile says.
struct Image {
    packages: Vec<String>,
    environment: Vec<(String, String)>,
    uid: u32,
    health: Vec<String>,
    kustomize: String,
    /// What makes the user and the cache: commands, each with its arguments.
    setup: Vec<Vec<String>>,
}

fn image() -> Image {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("Dockerfile")).unwrap();
    let last = &text[text.rfind("\nFROM ").unwrap()..];
    // Comments between the lines of a command are no part of it.
    let last: Vec<&str> = last.lines().filter(|l| !l.trim_start().starts_with('#')).collect();
    let joined = last.join("\n").replace("\\\n", " ");
    let line = |start: &str| {
        joined
            .lines()
            .find_map(|l| l.strip_prefix(start))
            .unwrap_or_else(|| panic!("no {start} in the Dockerfile's last stage"))
    };
    let install = line("RUN apt-get update").split("--no-install-recommends").nth(1).unwrap();
    let steps = line("RUN apt-get update").split("&&").skip(2);
    let setup = steps.map(|step| step.split_whitespace().map(str::to_owned).collect()).collect();
    let packages = install.split_whitespace().take_while(|w| *w != "&&").map(str::to_owned).collect();
    let pairs = line("ENV ").split_whitespace().map(|p| p.split_once('=').unwrap());
    let health = line("HEALTHCHECK ").split("CMD ").nth(1).unwrap();
    let version = text.lines().find_map(|l| l.strip_prefix("ARG KUSTOMIZE_VERSION=")).unwrap();
    Image {
        packages,
        environment: pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        uid: line("USER ").split(':').next().unwrap().parse().unwrap(),
        health: serde_json::from_str(health).unwrap(),
        kustomize: version.to_owned(),
        setup,
    }
}

/// The standard output of a program that succeeds.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Copies a file or a symbolic link, at its own path, into the root.
fn copy(root: &Path, file: &Path) {
    let to = root.join(file.strip_prefix("/").unwrap());
    let Ok(there) = fs::symlink_metadata(file) else { return };
    if there.is_dir() || to.symlink_metadata().is_ok() {
        return;
    }
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    if there.is_symlink() {
        symlink(fs::read_link(file).unwrap(), &to).unwrap();
    } else if fs::hard_link(file, &to).is_err() {
        fs::copy(file, &to).unwrap();
    }
}

/// The libraries that a program is linked to, the loader among them.
fn libraries(program: &Path) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    // A static program has none, and ldd says so with an exit code.
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// Makes the image's root directory.
fn assemble(root: &Path, image: &Image) {
    for (directory, mode) in [("tmp", 0o1777), ("etc", 0o755), ("dev", 0o755), ("usr/local/bin", 0o755)] {
        fs::create_dir_all(root.join(directory)).unwrap();
        fs::set_permissions(root.join(directory), fs::Permissions::from_mode(mode)).unwrap();
    }
    for directory in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(root.join("usr").join(directory)).unwrap();
        symlink(Path::new("usr").join(directory), root.join(directory)).unwrap();
    }
    let mut programs = vec![
        (PathBuf::from(env!("CARGO_BIN_EXE_windlass")), PathBuf::from("usr/local/bin/windlass")),
        (kustomize().to_owned(), PathBuf::from("usr/local/bin/kustomize")),
    ];
    // The base has a shell.
    let files = image.packages.iter().map(String::as_str).chain(["dash"]).flat_map(|package| {
        let list = output("dpkg", &["-L", package]);
        list.lines()
            .filter(|f| f.starts_with('/') && !f.starts_with("/usr/share/doc/"))
            .map(PathBuf::from)
            .collect::<Vec<_>>()
    });
    for file in files {
        copy(root, &file);
        let there = fs::metadata(&file);
        if there.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0) {
            programs.push((file, PathBuf::new()));
        }
    }
    let mut all = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (program, to) in &programs {
        if to.as_os_str().is_empty() {
            // Most of git's programs are the same one.
            if !seen.insert(fs::canonicalize(program).unwrap()) {
                continue;
            }
        } else if fs::hard_link(program, root.join(to)).is_err() {
            fs::copy(program, root.join(to)).unwrap();
        }
        all.extend(libraries(program));
    }
    for library in all {
        let real = fs::canonicalize(&library).unwrap();
        let to = root.join(library.strip_prefix("/").unwrap());
        if !to.exists() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(real, to).unwrap();
        }
    }
    copy(root, Path::new("/etc/ssl/certs/ca-certificates.crt"));
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    set_up(root, image);
    // What every container runtime puts there.
    for (device, minor) in [("null", "3"), ("zero", "5"), ("random", "8"), ("urandom", "9")] {
        let file = root.join("dev").join(device);
        output("mknod", &["-m", "666", file.to_str().unwrap(), "c", "1", minor]);
    }
}

/// Makes the user and the cache with the Dockerfile's own commands, in the root instead of here.
fn set_up(root: &Path, image: &Image) {
    for file in ["passwd", "group", "shadow", "gshadow"] {
        fs::write(root.join("etc").join(file), "").unwrap();
    }
    let mut done = Vec::new();
    for step in &image.setup {
        let arguments: Vec<&str> = step[1..].iter().map(String::as_str).collect();
        match step[0].as_str() {
            "groupadd" | "useradd" => {
                let arguments = [&["--prefix", root.to_str().unwrap()], &arguments[..]].concat();
                output(&step[0], &arguments);
            }
            "install" => {
                let (path, options) = arguments.split_last().unwrap();
                let within = root.join(path.strip_prefix('/').unwrap());
                fs::create_dir_all(within.parent().unwrap()).unwrap();
                output("install", &[options, &[within.to_str().unwrap()]].concat());
            }
            // The lists of packages, which are not here.
            "rm" => continue,
            other => panic!("the Dockerfile runs {other}, which is not tried here"),
        }
        done.push(step[0].as_str());
    }
    assert_eq!(done, ["groupadd", "useradd", "install"]);
    let user = fs::read_to_string(root.join("etc/passwd")).unwrap();
    assert!(user.contains(&format!(":{0}:{0}:", image.uid)), "USER is the user that was made: {user}");
}

/// A command in the image, as its user, with its environment and no other.
fn command(root: &Path, image: &Image, program: &str) -> Command {
    let mut command = Command::new("chroot");
    command
        .arg(format!("--userspec={0}:{0}", image.uid))
        .arg("--groups=")
        .arg(root)
        .arg(program)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(image.environment.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null());
    command
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn why_not() -> Option<&'static str> {
    let there =
        |program: &str| Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    if output("id", &["-u"]).trim() != "0" {
        return Some("chroot takes root");
    }
    if !there("dpkg") || !there("chroot") {
        return Some("it takes dpkg and chroot");
    }
    let scratch = tempfile::tempdir().unwrap();
    let node = scratch.path().join("null");
    let made = Command::new("mknod").arg(&node).args(["c", "1", "3"]).status().is_ok_and(|s| s.success());
    let usable = made && File::options().write(true).open(&node).is_ok();
    (!usable).then_some("device files cannot be made here")
}

#[test]
fn every_base_of_the_image_is_pinned() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("Dockerfile")).unwrap();
    let bases: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("FROM ")).collect();
    assert_eq!(bases.len(), 3);
    for base in bases {
        let image = base.split_whitespace().next().unwrap();
        let tag = image.split_once(':').map(|(_, tag)| tag);
        assert!(tag.is_some_and(|t| t != "latest" && t.contains(|c: char| c.is_ascii_digit())), "{base}");
    }
    // The compiler is the one that the manifest asks for, or newer.
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let wanted = manifest.lines().find_map(|l| l.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(text.contains(&format!("FROM rust:{wanted}")), "{wanted}");
}

#[test]
fn the_image_has_the_kustomize_that_the_tests_run() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/build.sh");
    let text = fs::read_to_string(script).unwrap();
    let tested = text.lines().find_map(|l| l.strip_prefix("kustomize=")).unwrap();
    assert_eq!(image().kustomize, tested);
}

#[tokio::test]
async fn a_commit_is_delivered_from_the_image_without_root() {
    if let Some(why) = why_not() {
        // Not `eprintln!`: the test harness would keep it to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: the image's root directory was not tried: {why}");
        return;
    }
    let image = image();
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    assemble(&root, &image);
    // The user reaches it, and can write nothing in it but its cache and /tmp.
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let tried: [(&str, &[&str]); 3] = [
        ("/usr/local/bin/windlass", &["--version"]),
        ("/usr/bin/git", &["--version"]),
        // ssh looks for the name of the user before anything else.
        ("/usr/bin/ssh", &["-G", "nowhere"]),
    ];
    for (program, arguments) in tried {
        let said = command(&root, &image, program).args(arguments).output().unwrap();
        assert!(said.status.success(), "{program}: {}", String::from_utf8_lossy(&said.stderr));
    }

    let world = World::stopped("image").await;
    fs::copy(&world.space.cluster.kubeconfig, root.join("etc/kubeconfig")).unwrap();
    fs::set_permissions(root.join("etc/kubeconfig"), fs::Permissions::from_mode(0o644)).unwrap();
    let commit = world.commit(
        "First version",
        &[
            ("shop/kustomization.yaml", "resources: [settings.yaml]\nnameSuffix: -blue\n"),
            ("shop/settings.yaml", &config_map("settings", "1")),
        ],
    );
    let served = world.repo.bare_copy("config.git");
    let server = GitServer::start(served.parent().unwrap(), Access::Basic("ada", "pass word"));
    let secret = json!({
        "metadata": {"name": "git"},
        "stringData": {"username": "ada", "password": "pass word", "ca.crt": server.ca()},
    });
    world.space.send("POST", &world.space.path("v1", "secrets"), &secret).await;
    let log = scratch.path().join("log");
    let out = File::create(&log).unwrap();
    let child = command(&root, &image, "/usr/local/bin/windlass")
        .args(["run", "--namespace", &world.space.name, "--watch-namespace", &world.space.name])
        .args(["--installation", &world.installation, "--kubeconfig", "/etc/kubeconfig"])
        .args(["--listen", "127.0.0.1:0", "--log-format", "json"])
        .stdout(out.try_clone().unwrap())
        .stderr(out)
        .spawn()
        .unwrap();
    let _running = Running(child);
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let spec = json!({
        "url": server.url("config.git"), "interval": "30s", "secretRef": {"name": "git"},
        "deliveries": [{"path": "shop", "template": {"targetNamespace": world.space.name}}],
    });
    world.apply("Repository", "config", json!({"spec": spec})).await;
    wait_until("the Delivery is ready", LIMIT, || async {
        let there = world.deliveries().get_opt("shop").await.map_err(|e| e.to_string())?;
        let there = there.and_then(|d| d.status);
        match there {
            Some(s)
                if s.phase == Phase::Ready && s.revision.as_ref().is_some_and(|r| r.ends_with(&commit)) =>
            {
                Ok(())
            }
            other => {
                let repository = world.repositories().get_opt("config").await.map_err(|e| e.to_string())?;
                let repository = repository.and_then(|r| r.status);
                Err(format!("{other:?} {repository:?}\n{}", said()))
            }
        }
    })
    .await;
    assert_eq!(world.get("v1", "configmaps", "settings-blue").await["data"]["key"], "1");

    // The health check, at the port that was free.
    let lines = said();
    let lines = lines.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let address = lines.filter_map(|l| l["address"].as_str().map(str::to_owned)).next().unwrap();
    let check: Vec<String> = image.health.iter().map(|a| a.replace("127.0.0.1:8080", &address)).collect();
    wait_until("it is healthy", LIMIT, || async {
        let healthy = command(&root, &image, &check[0]).args(&check[1..]).output().unwrap();
        let well = healthy.status.success() && healthy.stdout.trim_ascii() == b"ok";
        if well { Ok(()) } else { Err(format!("{healthy:?}")) }
    })
    .await;
    // One that is not well is told from one that is.
    let sick =
        command(&root, &image, &check[0]).args([&check[1], "http://127.0.0.1:1/livez"]).output().unwrap();
    assert!(!sick.status.success());
}

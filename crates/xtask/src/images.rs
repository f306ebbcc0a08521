//! `images`: the container images, made with buildah and no daemon.
//!
//! Each of ours is one static program and nothing else. Two more are for tests only: what holds a
//! pod's namespaces, and a Python with the official SDK for pods that are applications.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::Parser;

use crate::cluster::programs::{cache, execute, key_of};
use crate::cluster::wait::now;
use crate::cluster::{Need, need};
use crate::workspace::Workspace;

mod earlier;
mod python;

pub(crate) use self::earlier::{Earlier, earlier};

/// What `cargo xtask images` takes.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// The tag of the images: localhost/weir-sidecar:TAG and so on.
    #[arg(long, default_value = "dev")]
    tag: String,
    /// The cargo profile of the programs; `quick` builds in a third of the time.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Which ones; without any, those that ship. `weir-python` is for application pods of tests.
    #[arg(value_parser = ["weir-allocator", "weir-sidecar", "weir", python::NAME])]
    names: Vec<String>,
}

/// What an image is made of.
struct Image<'a> {
    name: &'a str,
    tag: &'a str,
    /// The instructions.
    recipe: &'a str,
    /// The folder that they copy from.
    folder: &'a Path,
}

/// Each program with its package.
const PROGRAMS: [(&str, &str); 3] =
    [("weir-allocator", "allocator"), ("weir-sidecar", "sidecar"), ("weir", "weir")];

/// The user of the images: none that any system knows.
const USER: &str = "65532:65532";

/// The version of the `pause` image that containerd's configuration names.
const PAUSE_TAG: &str = "1";

/// Makes them and prints their sizes.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<()> {
    need(&Need::FOR_IMAGES)?;
    let wanted = |name: &str| args.names.iter().any(|it| it == name);
    let ours: Vec<(&'static str, &str)> = PROGRAMS
        .into_iter()
        .filter(|(program, _)| args.names.is_empty() || wanted(program))
        .collect();
    if !ours.is_empty() {
        make(workspace, &ours, &args.tag, &args.profile)?;
    }
    if wanted(python::NAME) {
        python::make(workspace)?;
    }
    Ok(())
}

/// All that the tests need, in a hurry.
pub(crate) fn for_tests(workspace: &Workspace) -> anyhow::Result<()> {
    need(&Need::FOR_IMAGES)?;
    make(workspace, &PROGRAMS, "dev", "quick")?;
    python::make(workspace)
}

/// The archives that are there.
pub(crate) fn made(workspace: &Workspace) -> anyhow::Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(folder(workspace)) else { return Ok(Vec::new()) };
    let mut archives = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // A cache that was emptied leaves a link to nothing.
        if path.extension().is_some_and(|it| it == "tar") && path.exists() {
            archives.push(path);
        }
    }
    archives.sort();
    Ok(archives)
}

/// The image that holds a pod's namespaces, from the cache.
pub(crate) fn pause(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let source = workspace.root.join("tests/cluster/programs/pause/pause.c");
    let text = fs::read(&source).with_context(|| source.display().to_string())?;
    let folder = cache()?.join(format!("pause-{}", key_of(&[&text])));
    let archive = folder.join("pause.tar");
    if !archive.is_file() {
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let mut compiler = Command::new("musl-gcc");
        compiler.args(["-static", "-Os", "-s", "-o"]).arg(folder.join("pause")).arg(&source);
        execute(&mut compiler)?;
        let recipe =
            format!("FROM scratch\nCOPY pause /pause\nUSER {USER}\nENTRYPOINT [\"/pause\"]\n");
        let image = Image { name: "pause", tag: PAUSE_TAG, recipe: &recipe, folder: &folder };
        image.pack(workspace, &archive)?;
    }
    Ok(archive)
}

fn make(
    workspace: &Workspace,
    programs: &[(&'static str, &str)],
    tag: &str,
    profile: &str,
) -> anyhow::Result<Vec<PathBuf>> {
    let start = now();
    let target = triple();
    // Quick when it is there.
    execute(
        Command::new("rustup")
            .args(["--quiet", "target", "add", &target])
            .current_dir(&workspace.root),
    )?;
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--profile", profile, "--target", &target, "--target-dir"]);
    cargo.arg(&workspace.target);
    for (program, package) in programs {
        cargo.args(["--package", package, "--bin", program]);
    }
    execute(&mut cargo)?;
    println!("programs built in {:.0} s", start.elapsed().as_secs_f64());
    // The folder of the profile `dev` is called `debug`.
    let built =
        workspace.target.join(target).join(if profile == "dev" { "debug" } else { profile });
    let mut archives = Vec::new();
    for (program, _) in programs {
        let archive = pack_program(workspace, program, tag, &built.join(program))?;
        println!("localhost/{program}:{tag}: {}", size(&archive)?);
        archives.push(archive);
    }
    Ok(archives)
}

/// What our images are compiled for.
fn triple() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// The image of one program; made anew only if the program is another.
fn pack_program(
    workspace: &Workspace,
    program: &str,
    tag: &str,
    built: &Path,
) -> anyhow::Result<PathBuf> {
    let recipe = format!(
        "FROM scratch\nCOPY {program} /{program}\nUSER {USER}\nENTRYPOINT [\"/{program}\"]\n"
    );
    let content = fs::read(built).with_context(|| built.display().to_string())?;
    let key = key_of(&[&content, recipe.as_bytes(), tag.as_bytes()]);
    let archive = folder(workspace).join(format!("{program}.tar"));
    let stamp = archive.with_extension("key");
    if archive.is_file() && fs::read_to_string(&stamp).is_ok_and(|it| it == key) {
        return Ok(archive);
    }
    let context = folder(workspace).join(format!("context-{}", std::process::id()));
    fs::create_dir_all(&context).with_context(|| context.display().to_string())?;
    fs::copy(built, context.join(program)).with_context(|| built.display().to_string())?;
    let image = Image { name: program, tag, recipe: &recipe, folder: &context };
    image.pack(workspace, &archive)?;
    fs::remove_dir_all(&context).with_context(|| context.display().to_string())?;
    fs::write(&stamp, key).with_context(|| stamp.display().to_string())?;
    Ok(archive)
}

/// Where archives are.
fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("images")
}

fn size(file: &Path) -> anyhow::Result<String> {
    let bytes = fs::metadata(file).with_context(|| file.display().to_string())?.len();
    let tenths = bytes / 100_000;
    Ok(format!("{}.{} MB", tenths / 10, tenths % 10))
}

// === impl Image ===

impl Image<'_> {
    /// Builds it and writes it to `archive`, in a store that is thrown away.
    fn pack(&self, workspace: &Workspace, archive: &Path) -> anyhow::Result<()> {
        // Another run may be at it too.
        let work = folder(workspace).join(format!("work-{}", std::process::id()));
        if work.exists() {
            fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
        }
        fs::create_dir_all(&work).with_context(|| work.display().to_string())?;
        let recipe = work.join("Containerfile");
        let policy = work.join("policy.json");
        fs::write(&recipe, self.recipe)?;
        fs::write(&policy, "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}")?;
        let buildah = |action: &str| {
            let mut buildah = Command::new("buildah");
            buildah.arg("--root").arg(work.join("store")).arg("--runroot").arg(work.join("run"));
            // Plain folders: quick enough for what is in these, and nothing stays mounted.
            buildah.args(["--storage-driver", "vfs", action, "--quiet", "--signature-policy"]);
            buildah.arg(&policy);
            buildah
        };
        let name = format!("localhost/{}:{}", self.name, self.tag);
        let mut build = buildah("build");
        build.args(["--isolation", "chroot", "--timestamp", "0", "--tag", &name, "--file"]);
        build.arg(&recipe).arg(self.folder).stdout(std::process::Stdio::null());
        execute(&mut build).with_context(|| name.clone())?;
        let unfinished = archive.with_extension("unfinished");
        // An archive is written once; there is no other way to write it anew.
        let _absent = fs::remove_file(&unfinished);
        let destination = format!("docker-archive:{}:{name}", unfinished.display());
        execute(buildah("push").arg(&name).arg(destination)).with_context(|| name.clone())?;
        fs::rename(&unfinished, archive).with_context(|| archive.display().to_string())?;
        fs::remove_dir_all(&work).with_context(|| work.display().to_string())
    }
}

//! An image for pods that are applications: Debian's Python and the official SDK, unchanged.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::cluster::programs::{cache, execute, key_of};
use crate::cluster::wait::now;
use crate::images::{Image, USER, folder, size};
use crate::workspace::Workspace;

const NAME: &str = "weir-python";
const TAG: &str = "dev";

/// Debian's release, and the version of Python in it.
const RELEASE: &str = "bookworm";
const PYTHON: &str = "3.11";

/// Where packages come from if the machine is no Debian.
const MIRROR: &str = "http://deb.debian.org/debian";

/// What Debian's packages leave behind and nobody needs in an image.
const SUPERFLUOUS: [&str; 6] = [
    "var/cache/apt",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "var/log",
];

/// Makes it, unless the cache has it.
pub(super) fn make(workspace: &Workspace) -> anyhow::Result<()> {
    let requirements = workspace.root.join("tests/sdk/requirements.txt");
    let text = fs::read(&requirements).with_context(|| requirements.display().to_string())?;
    let recipe =
        format!("FROM scratch\nCOPY . /\nUSER {USER}\nENTRYPOINT [\"/usr/bin/python3\"]\n");
    let key = key_of(&[&text, recipe.as_bytes(), RELEASE.as_bytes()]);
    let home = cache()?.join(format!("{NAME}-{key}"));
    let archive = home.join(format!("{NAME}.tar"));
    if !archive.is_file() {
        let start = now();
        println!("making localhost/{NAME}:{TAG} (once)");
        let root = home.join("root");
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| root.display().to_string())?;
        }
        fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
        install(&root, &home, &requirements)?;
        let image = Image { name: NAME, tag: TAG, recipe: &recipe, folder: &root };
        image.pack(workspace, &archive)?;
        fs::remove_dir_all(&root).with_context(|| root.display().to_string())?;
        println!("made in {:.0} s", start.elapsed().as_secs_f64());
    }
    let link = folder(workspace).join(format!("{NAME}.tar"));
    fs::create_dir_all(folder(workspace))?;
    // An older one may be there.
    let _absent = fs::remove_file(&link);
    symlink(&archive, &link).with_context(|| link.display().to_string())?;
    println!("localhost/{NAME}:{TAG}: {}", size(&archive)?);
    Ok(())
}

fn install(root: &Path, home: &Path, requirements: &Path) -> anyhow::Result<()> {
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", "--include=python3,ca-certificates", RELEASE]);
    debootstrap.arg(root).arg(mirror());
    let log = fs::File::create(home.join("debootstrap.log"))?;
    execute(debootstrap.stdout(log))?;
    // The machine's own pip, whatever its Python is, fetches what that of the image needs.
    let environment = home.join("pip");
    execute(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip.args(["--only-binary=:all:", "--python-version", PYTHON, "--requirement"]);
    pip.arg(requirements).arg("--target");
    pip.arg(root.join(format!("usr/local/lib/python{PYTHON}/dist-packages")));
    execute(&mut pip)?;
    fs::remove_dir_all(&environment)?;
    for name in SUPERFLUOUS {
        let folder = root.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
    }
    Ok(())
}

/// The mirror of the machine's own package sources, since that is the one it reaches.
fn mirror() -> String {
    let files = ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"];
    let texts = files.map(|file| fs::read_to_string(file).unwrap_or_default());
    let mut lines = texts.iter().flat_map(|text| text.lines());
    let address = lines.find_map(|line| {
        let mut words = line.split_whitespace();
        match words.next()? {
            "deb" => words.find(|word| word.starts_with("http")),
            "URIs:" => words.next(),
            _ => None,
        }
    });
    address.unwrap_or(MIRROR).to_owned()
}

//! `weir`: the program that people run. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir::main()
}

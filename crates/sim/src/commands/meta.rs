//! `sim meta`: the check that keeps the simulator honest. A seed that means two different worlds would
//! make every failure a rumour.

use sim::world;
use sim::world::options::Options;
use sim::world::trace::Keep;

#[derive(Debug, clap::Args)]
pub(crate) struct MetaArgs {
    /// Of the first world.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many.
    #[arg(long, default_value_t = 20)]
    worlds: u64,
}

/// True if every world happens the same way twice.
pub(crate) fn run(args: &MetaArgs) -> bool {
    for seed in args.seed..args.seed + args.worlds {
        let [first, second] = [(); 2].map(|()| world::run(&Options::draw(seed), Keep::All));
        if let Some((one, other)) = first.1.iter().zip(&second.1).find(|(one, other)| one != other)
        {
            println!("meta: seed {seed} differs:\n  {one}\n  {other}");
            return false;
        }
        if first != second {
            println!("meta: seed {seed} ends differently");
            return false;
        }
    }
    println!("meta: {} worlds from seed {} happen the same way twice", args.worlds, args.seed);
    true
}

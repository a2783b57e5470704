//! Random histories: after all that went wrong is mended, the group runs the job as if nothing had been.

use super::world::{BAD, World, offer};
use crate::simulation::dice::Dice;
use crate::simulation::number;

/// How many histories are tried where nothing else is asked for.
const DEFAULT_SEEDS: u64 = 300;

/// How often things go wrong: each once in so many steps.
pub(super) struct Weather {
    crash: usize,
    cut: usize,
    store: usize,
    pause: usize,
    leave: usize,
    process: usize,
    version: usize,
    refused: usize,
    heal: usize,
}

impl Weather {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let mut one_of = |choices: &[usize]| choices[dice.below(choices.len())];
        Self {
            crash: one_of(&[100, 400, 4000]),
            cut: one_of(&[100, 400, 4000]),
            store: one_of(&[200, 400, 4000]),
            pause: one_of(&[200, 400, 4000]),
            leave: one_of(&[200, 400, 4000]),
            process: one_of(&[200, 400, 4000]),
            version: one_of(&[400, 4000, 4000]),
            refused: one_of(&[400, 4000, 4000]),
            heal: one_of(&[50, 100, 200]),
        }
    }
}

fn run(seed: u64, tells: bool) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let weather = Weather::new(&mut dice);
    let slots: Vec<_> = (0..dice.between(1, 4)).map(|_| dice.between(0, 3) as u32).collect();
    let mut world = World::new(seed ^ 0x5eed, &slots);
    world.tells = tells;
    world.faults = [0, 10, 50][dice.below(3)];
    for host in 0..slots.len() {
        if !dice.one_in(3) {
            world.start(host);
        }
    }
    let steps = dice.between(200, 4000);
    for _ in 0..steps {
        world.step();
        disturb(&mut world, &weather, &mut dice);
    }
    heal(&mut world);
    if slots.iter().all(|slots| *slots == 0) {
        return Ok(());
    }
    for _ in 0..24 {
        world.run_for(5000);
        // What was decided before may end copies after; whoever started them starts them again.
        let ended: Vec<_> = (0..slots.len()).filter(|host| world.hosts[*host].node.is_none()).collect();
        ended.into_iter().for_each(|host| world.start(host));
    }
    if let Some(why) = world.unsettled() {
        return Err(why);
    }
    let (started, records) = (world.started.clone(), world.records.len());
    world.run_for(60_000);
    if let Some(why) = world.unsettled() {
        return Err(format!("it was settled, and then {why}"));
    }
    if (world.started.as_slice(), world.records.len()) != (started.as_slice(), records) {
        return Err(format!("after {started:?} it went on to {:?} without a reason", world.started));
    }
    Ok(())
}

pub(super) fn disturb(world: &mut World, weather: &Weather, dice: &mut Dice) {
    let hosts = world.hosts.len();
    let host = dice.below(hosts);
    let other = dice.below(hosts);
    if dice.one_in(weather.crash) {
        if dice.one_in(2) { world.kill(host) } else { world.power_cut(host) }
    }
    if dice.one_in(weather.cut) && host != other {
        world.cut(host, other);
        if !dice.one_in(3) {
            world.cut(other, host);
        }
    }
    if dice.one_in(weather.store) {
        world.storeless.insert(host);
    }
    if dice.one_in(weather.pause) {
        world.hosts[host].paused_until_ms = world.now_ms + dice.between(100, 40_000) as u64;
    }
    if dice.one_in(weather.leave) && world.hosts[host].node.is_some() {
        world.leave(host);
    }
    if dice.one_in(weather.process) {
        world.kill_a_process();
    }
    if dice.one_in(weather.version) {
        let version = ["1", "2", BAD][dice.below(3)];
        world.kill(host);
        world.hosts[host].offer = offer(version, world.hosts[host].offer.slots);
    }
    if dice.one_in(weather.refused) {
        world.refuse(host);
    }
    if dice.one_in(weather.heal) {
        match dice.below(4) {
            0 => world.cuts.clear(),
            1 => world.storeless.clear(),
            2 => world.refused.clear(),
            _ => {
                world.hosts[host].dark = false;
                if world.hosts[host].node.is_none() {
                    world.start(host);
                }
            }
        }
    }
}

/// Mends everything, and starts again what does not run.
pub(super) fn heal(world: &mut World) {
    world.tell(|| "everything is mended".to_owned());
    world.cuts.clear();
    world.storeless.clear();
    world.refused.clear();
    world.faults = 0;
    for host in 0..world.hosts.len() {
        world.hosts[host].dark = false;
        world.hosts[host].paused_until_ms = 0;
        let bad = world.hosts[host].offer.version == BAD;
        if bad {
            world.hosts[host].offer.version = "2".to_owned();
        }
        if bad || world.hosts[host].node.is_none() || world.hosts[host].offer.leaving {
            world.kill(host);
            world.start(host);
        }
    }
}

#[test]
fn whatever_has_gone_wrong_the_group_runs_the_job_once_it_is_mended() {
    for_each_seed(1, run);
}

/// Tries histories until one ends badly, one in so many of the usual number. An environment variable names one that tells what
/// happens.
pub(super) fn for_each_seed(one_in: u64, run: impl Fn(u64, bool) -> Result<(), String> + std::panic::RefUnwindSafe) {
    if let Some(seed) = number("FLUVIAL_SEED") {
        if let Err(why) = run(seed, true) {
            panic!("seed {seed}: {why}");
        }
        return;
    }
    for seed in 0..number("FLUVIAL_SEEDS").unwrap_or(DEFAULT_SEEDS) / one_in {
        // An assertion of the world does not name the seed.
        let ended = std::panic::catch_unwind(|| run(seed, false));
        if let Err(why) = ended.unwrap_or_else(|_| Err("an assertion of the world failed".to_owned())) {
            panic!("seed {seed}: {why}\nFLUVIAL_SEED={seed} tells how it came to this");
        }
    }
}

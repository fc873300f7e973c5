//! Which workers there are, on which CPUs, with what limits and listeners: `[runtime]` and `[[core]]` resolved against
//! the CPUs this process may use.

use core_affinity::CoreId;

use crate::config::types::{Config, DriverChoice, OnFull, Workers};

/// What is to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The workers, by their numbers.
    pub workers: Vec<WorkerPlan>,
}

/// One worker.
#[derive(Debug, Clone)]
pub struct WorkerPlan {
    /// Its CPU.
    pub cpu: usize,
    /// How it talks to the kernel.
    pub driver: DriverChoice,
    /// Entries of its submission queue.
    pub ring_entries: u32,
    /// Client connections it holds at once.
    pub max_connections: usize,
    /// What happens to more.
    pub on_full: OnFull,
    /// Small buffers it may use at once.
    pub buffers: usize,
    /// TLS handshakes it has under way at once.
    pub max_handshakes: usize,
    /// Its listeners' places in the file.
    pub listeners: Vec<usize>,
}

/// Why the configuration cannot run on this machine.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// The kernel does not say which CPUs there are.
    #[error("the CPUs this process may use cannot be found out")]
    NoCpus,
    /// More workers than CPUs.
    #[error("runtime.workers is {wanted}, but this process may use only {allowed} CPUs")]
    TooManyWorkers {
        /// Workers asked for.
        wanted: usize,
        /// CPUs there are.
        allowed: usize,
    },
    /// A `[[core]]` that no worker is on.
    #[error("[[core]] cpu = {cpu}: no worker runs there; the workers are on {workers:?}")]
    NoSuchCore {
        /// The CPU named.
        cpu: usize,
        /// The CPUs in use.
        workers: Vec<usize>,
    },
    /// A listener that no core serves.
    #[error("no core serves the listener `{listener}`")]
    Unserved {
        /// The listener's name.
        listener: String,
    },
}

/// Plans the workers of a configuration for this machine.
pub fn plan(config: &Config) -> Result<Plan, PlanError> {
    let allowed: Vec<usize> = core_affinity::get_core_ids()
        .ok_or(PlanError::NoCpus)?
        .into_iter()
        .map(|core: CoreId| core.id)
        .collect();
    plan_on(config, &allowed)
}

fn plan_on(config: &Config, allowed: &[usize]) -> Result<Plan, PlanError> {
    let count = match config.runtime.workers {
        Workers::Auto => allowed.len(),
        Workers::Count(wanted) if wanted <= allowed.len() => wanted,
        Workers::Count(wanted) => return Err(PlanError::TooManyWorkers { wanted, allowed: allowed.len() }),
    };
    let cpus = choose(config, allowed, count);
    if let Some(core) = config.core.iter().find(|core| !cpus.contains(&core.cpu)) {
        return Err(PlanError::NoSuchCore { cpu: core.cpu, workers: cpus });
    }
    let workers: Vec<WorkerPlan> = cpus.into_iter().map(|cpu| worker(config, cpu)).collect();
    for (place, listener) in config.listener.iter().enumerate() {
        if !workers.iter().any(|worker| worker.listeners.contains(&place)) {
            return Err(PlanError::Unserved { listener: listener.name.clone() });
        }
    }
    Ok(Plan { workers })
}

/// The CPUs to use: those that `[[core]]` names, then the first others.
fn choose(config: &Config, allowed: &[usize], count: usize) -> Vec<usize> {
    let is_named = |cpu: &usize| config.core.iter().any(|core| core.cpu == *cpu);
    let (named, others): (Vec<usize>, Vec<usize>) = allowed.iter().partition(|cpu| is_named(cpu));
    let mut cpus: Vec<usize> = named.into_iter().chain(others).take(count).collect();
    cpus.sort_unstable();
    cpus
}

fn worker(config: &Config, cpu: usize) -> WorkerPlan {
    let runtime = &config.runtime;
    let own = config.core.iter().find(|core| core.cpu == cpu);
    let is_served =
        |name: &String| own.and_then(|core| core.listeners.as_ref()).is_none_or(|names| names.contains(name));
    WorkerPlan {
        cpu,
        driver: runtime.driver,
        ring_entries: own.and_then(|core| core.ring_entries).unwrap_or(runtime.ring_entries),
        max_connections: own.and_then(|core| core.max_connections).unwrap_or(runtime.max_connections),
        on_full: runtime.on_full,
        buffers: own.and_then(|core| core.buffers).unwrap_or(runtime.buffers),
        max_handshakes: own.and_then(|core| core.max_handshakes).unwrap_or(runtime.max_handshakes),
        listeners: (0..config.listener.len())
            .filter(|place| is_served(&config.listener[*place].name))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    const LISTENERS: &str = "[[listener]]\nname = 'a'\naddress = '127.0.0.1:0'\n[[listener]]\nname = 'b'\naddress = '127.0.0.1:0'\n";

    #[test]
    fn one_worker_per_allowed_cpu() {
        let plan = plan_on(&config(LISTENERS), &[2, 5]).unwrap();
        assert_eq!(plan.workers.iter().map(|worker| worker.cpu).collect::<Vec<_>>(), [2, 5]);
        assert!(plan.workers.iter().all(|worker| worker.listeners == [0, 1]));
    }

    #[test]
    fn a_named_core_is_used_and_tuned() {
        let text = format!(
            "[runtime]\nworkers = 1\n[[core]]\ncpu = 3\nbuffers = 99\nring_entries = 512\nmax_connections = 7\nmax_handshakes = 5\n{LISTENERS}"
        );
        let plan = plan_on(&config(&text), &[0, 1, 2, 3]).unwrap();
        let [worker] = &plan.workers[..] else { panic!("one worker") };
        assert_eq!(
            (worker.cpu, worker.buffers, worker.ring_entries, worker.max_connections, worker.max_handshakes),
            (3, 99, 512, 7, 5)
        );
    }

    #[test]
    fn listeners_of_a_core_and_the_unserved_one() {
        let text = format!(
            "[[core]]\ncpu = 0\nlisteners = ['a']\n[[core]]\ncpu = 1\nlisteners = ['a']\n{LISTENERS}"
        );
        let error = plan_on(&config(&text), &[0, 1]).unwrap_err();
        assert_eq!(error, PlanError::Unserved { listener: "b".into() });
        let plan = plan_on(&config(&text), &[0, 1, 2]).unwrap();
        assert_eq!(plan.workers[0].listeners, [0]);
        assert_eq!(plan.workers[2].listeners, [0, 1]);
    }

    #[test]
    fn too_much_is_refused() {
        let text = format!("[runtime]\nworkers = 3\n{LISTENERS}");
        assert_eq!(
            plan_on(&config(&text), &[0, 1]).unwrap_err(),
            PlanError::TooManyWorkers { wanted: 3, allowed: 2 }
        );
        let text = format!("[[core]]\ncpu = 9\n{LISTENERS}");
        assert_eq!(
            plan_on(&config(&text), &[0, 1]).unwrap_err(),
            PlanError::NoSuchCore { cpu: 9, workers: vec![0, 1] }
        );
    }
}

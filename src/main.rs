//! Arguments → configuration → server.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use ringgate::{
    config::{self, Config, Diagnostics, Inspected, interpolate::NoEnvironment, schema},
    server::{
        self, Options, Question,
        demo::{Addresses, Live, Upstreams, banner},
        messages,
    },
    table::{self, Table},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An API gateway for Linux: one pinned io_uring runtime per core, one binary, one TOML file.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway.
    Run {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run the gateway before embedded upstreams, and show what happens.
    Demo {
        /// Where to listen.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
    },
    /// Check a configuration file and report everything that is wrong with it.
    Check {
        /// The configuration file.
        file: PathBuf,
    },
    /// Show which route a request takes, why the others lost, and where it leads.
    Explain {
        /// The configuration file.
        file: PathBuf,
        /// The method.
        method: String,
        /// `http://host/path?query`, or `/path?query`.
        url: String,
        /// A field, `name: value`; may be repeated.
        #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = field)]
        header: Vec<(String, String)>,
        /// The listener it comes in on; the first one by default.
        #[arg(long, value_name = "NAME")]
        listener: Option<String>,
    },
    /// Print the JSON Schema of the configuration.
    Schema,
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn main() -> ExitCode {
    let _messages = messages::start();
    let result = match Arguments::parse().command {
        Command::Run { config } => run(&config),
        Command::Demo { listen } => demo(listen),
        Command::Check { file } => check(&file),
        Command::Explain { file, method, url, header, listener } => {
            explain(&file, &Question { method, url, headers: header, listener })
        }
        Command::Schema => print(&format!("{:#}\n", schema::json_schema())).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    })
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("standard output")
}

/// Everything there is to say about a file, and its table if it can be used.
fn compile(inspected: Inspected) -> (Option<(Config, Table)>, Diagnostics) {
    let Inspected { config, mut diagnostics, .. } = inspected;
    let table = config.as_ref().and_then(|config| {
        table::compile(config, &mut |path, diagnostic| {
            // What was found wrong before is not said again in other words.
            if !diagnostics.has_error_at(path) {
                diagnostics.push_at(path, diagnostic);
            }
        })
    });
    let usable = config.zip(table).filter(|_| !diagnostics.has_errors());
    (usable, diagnostics)
}

/// A file's configuration and table; what is wrong with it goes to standard error.
fn load(file: &std::path::Path) -> Option<(Config, Table)> {
    let (usable, diagnostics) = compile(config::inspect_file(file));
    if !diagnostics.is_empty() {
        let rendered = diagnostics.render(std::io::stderr().is_terminal());
        // There is nowhere else to say that standard error is closed.
        let _ = std::io::stderr().write_all(rendered.as_bytes());
    }
    usable
}

fn check(file: &std::path::Path) -> anyhow::Result<ExitCode> {
    let Some((config, _)) = load(file) else { return Ok(ExitCode::FAILURE) };
    print(&format!(
        "{}: good ({} listeners, {} routes, {} clusters)\n",
        file.display(),
        config.listener.len(),
        config.route.len(),
        config.cluster.len()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn explain(file: &std::path::Path, question: &Question) -> anyhow::Result<ExitCode> {
    let Some((_, table)) = load(file) else { return Ok(ExitCode::FAILURE) };
    let mut text = String::new();
    let matches = server::explain(&table, question, &mut text)?;
    print(&text)?;
    Ok(if matches { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(file: &std::path::Path) -> anyhow::Result<ExitCode> {
    let Some((config, table)) = load(file) else { return Ok(ExitCode::FAILURE) };
    let options = Options {
        config,
        table,
        log_sink: None,
        on_ready: Box::new(|listeners| {
            for (name, address) in listeners {
                tracing::info!(listener = name, %address, "listening");
            }
        }),
    };
    runtime()?.block_on(server::run(options))?;
    Ok(ExitCode::SUCCESS)
}

fn demo(listen: SocketAddr) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let upstreams = Upstreams::start(&Addresses::of_config()).await?;
        if let Some(notice) = upstreams.notice() {
            print(&format!("{notice}\n"))?;
        }
        let inspected = config::inspect("config/demo.toml", &upstreams.config(), &NoEnvironment);
        let (usable, diagnostics) = compile(inspected);
        let Some((mut config, table)) = usable else {
            anyhow::bail!("the demo's configuration: {}", diagnostics.render(false));
        };
        for listener in &mut config.listener {
            listener.address = listen.to_string();
        }
        let colour = std::io::stdout().is_terminal();
        let live = Live::new(upstreams.addresses(), colour);
        let options = Options {
            config,
            table,
            log_sink: Some(Box::new(Show { live, line: Vec::new() })),
            on_ready: Box::new(|listeners| {
                if let Some((_, address)) = listeners.first() {
                    // Whoever closed standard output does not want to read it.
                    let _ = print(&banner(*address));
                }
            }),
        };
        server::run(options).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("the control plane's runtime")
}

/// Shows access-log lines as they come, for people.
struct Show {
    live: Live,
    line: Vec<u8>,
}

impl Write for Show {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                if let Some(text) = self.live.render_line(&self.line) {
                    let mut out = std::io::stdout().lock();
                    out.write_all(text.as_bytes())?;
                    out.write_all(b"\n")?;
                    out.flush()?;
                }
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().flush()
    }
}

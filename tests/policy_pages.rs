//! The pages about policies: their examples run, and there is one for each kind.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(unreachable_pub, dead_code, reason = "modules of which this binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Stdio},
};

use support::{
    Gateway, Upstream,
    mint::{Files, Mint},
    ok, repository,
};

fn pages() -> BTreeMap<String, String> {
    let files = std::fs::read_dir(repository("docs/policies")).unwrap();
    let page = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    let mut pages: BTreeMap<String, String> = files.map(|file| page(file.unwrap().path())).collect();
    pages.insert("aggregation".into(), std::fs::read_to_string(repository("docs/aggregation.md")).unwrap());
    pages
}

/// The blocks of a page in this language.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let fence = format!("```{language}\n");
    let mut rest = page;
    let mut found = Vec::new();
    while let Some((_, block)) = rest.split_once(&fence) {
        let (block, after) = block.split_once("```").unwrap();
        found.push(block);
        rest = after;
    }
    found
}

/// Answers with what it got: the request line, and the fields by names in lower case.
fn echo() -> Upstream {
    Upstream::answering(|head, _| {
        let mut lines = head.lines();
        let mut text = format!("{}\n", lines.next().unwrap_or_default());
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            text.push_str(&format!("{}:{value}\n", name.to_ascii_lowercase()));
        }
        ok(text.as_bytes())
    })
}

/// Runs the example of a page, if it has commands; says what is wrong.
fn run(name: &str, page: &str) -> Result<(), String> {
    let [example] = blocks(page, "toml")[..] else { return Err("there is not one example".into()) };
    let (mint, files) = (Mint::new("an authority"), Files::new());
    let ca = files.write("ca.pem", &mint.cert);
    for (file, pair) in
        [("server", mint.pair(&["127.0.0.1"])), ("client", mint.person("press", &["press.machines.example"]))]
    {
        files.write(&format!("{file}.pem"), &pair.cert);
        files.write(&format!("{file}.key"), &pair.key);
    }
    let directory = ca.strip_suffix("ca.pem").unwrap();
    let upstreams: Vec<Upstream> = (1..=3).map(|_| echo()).collect();
    let mut config = example.replace("/etc/ringgate/", directory);
    for (number, upstream) in (9001..).zip(&upstreams) {
        config = config.replace(&format!("127.0.0.1:{number}"), &upstream.address.to_string());
    }
    let plain = ["127.0.0.1:8080", "127.0.0.1:8443"];
    let config = plain.iter().fold(config, |config, address| config.replace(address, "127.0.0.1:0"));
    let gateway = Gateway::start(&config);
    for block in blocks(page, "console") {
        let mut said: Option<(String, String)> = None;
        for line in block.lines().filter(|line| !line.is_empty()) {
            if let Some(command) = line.strip_prefix("$ ") {
                let here = plain.iter().fold(command.to_owned(), |command, address| {
                    command.replace(address, &gateway.address().to_string())
                });
                let output = Command::new("timeout")
                    .args(["20", "sh", "-c", &here.replace("/etc/ringgate/", directory)])
                    .stdin(Stdio::null())
                    .output()
                    .unwrap();
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                said = Some((command.to_owned(), text));
                continue;
            }
            let (command, text) = said.as_mut().ok_or("an output has no command")?;
            let Some(at) = text.to_ascii_lowercase().find(&line.to_ascii_lowercase()) else {
                return Err(format!(
                    "{name}: `{command}` does not say `{line}`, but (what is left):\n{text}"
                ));
            };
            text.replace_range(..at + line.len(), "");
        }
    }
    Ok(())
}

#[test]
fn every_example_does_what_its_page_says() {
    let faults: Vec<String> = pages()
        .iter()
        .filter(|(name, _)| *name != "README")
        .filter_map(|(name, page)| run(name, page).err())
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_kind_has_a_page_and_every_page_is_listed() {
    let schema = Command::new(env!("CARGO_BIN_EXE_ringgate")).arg("schema").output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    let keys = schema["$defs"]["Policy"]["properties"].as_object().unwrap();
    let kinds: Vec<&String> = keys.keys().filter(|key| !matches!(key.as_str(), "name" | "default")).collect();
    assert!(kinds.len() >= 11, "{kinds:?}");
    let pages = pages();
    let list = &pages["README"];
    for kind in kinds {
        assert!(pages.contains_key(kind), "docs/policies/{kind}.md is missing");
        assert!(list.contains(&format!("[`{kind}`]({kind}.md)")), "docs/policies/README.md lacks {kind}");
    }
}

#[test]
fn a_page_that_is_wrong_is_found() {
    let page = "```toml\n[[listener]]\nname = \"l\"\naddress = \"127.0.0.1:8080\"\n[[route]]\nname = \"r\"\nrespond = { body = \"hi\" }\n```\n\
                ```console\n$ curl -si http://127.0.0.1:8080/\nHTTP/1.1 200 OK\nhi\n```\n";
    run("good", page).unwrap();
    let wrong = run("wrong", &page.replace("\nhi\n", "\nho\n")).unwrap_err();
    assert!(wrong.contains("does not say `ho`"), "{wrong}");
    // Lines come in their order.
    run("order", &page.replace("HTTP/1.1 200 OK\nhi", "hi\nHTTP/1.1 200 OK")).unwrap_err();
}

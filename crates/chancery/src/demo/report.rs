//! What the demo shows once it runs: certificates got by real clients, the processes, and what to type next.

use std::net::TcpListener;

use anyhow::Context;

use super::DemoArgs;
use super::clients::{self, Eab, Obtained, Target};
use super::fetch;
use super::show::{Steps, block, heading};
use super::stack::{GRANTED, Stack};

/// With `--serve`: says where everything is and waits for ever. Without: two clients, two certificates, and the end.
///
/// # Errors
///
/// When a client does not get its certificate, or openssl does not accept it.
pub(crate) async fn run(args: &DemoArgs, stack: &Stack, steps: &Steps) -> anyhow::Result<()> {
    if args.serve {
        serve(args, stack);
        std::future::pending::<()>().await;
    }
    let facts = &stack.facts;
    let work = stack.layout.path("clients");

    let step = steps.begin("certbot gets a certificate by http-01");
    let folder = work.join("certbot");
    let target = Target { directory: &facts.directory, endpoint_ca: &facts.root, folder: &folder };
    let certbot = clients::certbot(&target, &["www.demo.test", "demo.test"], facts.http_01_port).await?;
    step.done(&format!("in {:.1} s", certbot.took.as_secs_f32()));

    let step = steps.begin("lego gets one by EAB and grant, no challenge");
    let folder = work.join("lego");
    let target = Target { directory: &facts.eab_directory, endpoint_ca: &facts.root, folder: &folder };
    let eab = Eab { kid: &facts.eab_kid, hmac_key: &facts.eab_hmac_key };
    let name = format!("app.{GRANTED}");
    let lego = clients::lego(&target, &eab, &name, free_port()?).await?;
    step.done(&format!("in {:.1} s", lego.took.as_secs_f32()));

    let step = steps.begin("openssl verify -crl_check, both chains");
    let crl = fetch::get(&facts.crl, &facts.root).await.context("the CRL")?;
    for obtained in [&certbot, &lego] {
        clients::verify(&obtained.chain, &facts.root, &crl, &work).await?;
    }
    step.done("OK, OK");

    heading("The certificate that certbot got");
    block(&clients::show(&certbot.chain).await?);
    processes(stack);
    next(stack, &[&certbot, &lego]);
    println!();
    Ok(())
}

fn serve(args: &DemoArgs, stack: &Stack) {
    let facts = &stack.facts;
    heading("Chancery is running; Ctrl-C ends it");
    let rows = [
        ("directory", facts.directory.clone()),
        ("directory with EAB", facts.eab_directory.clone()),
        ("EAB key id", facts.eab_kid.clone()),
        ("EAB key", format!("in {}", stack.layout.path("demo.json").display())),
        ("granted names", format!("{GRANTED} and everything below it")),
        ("trust this root", facts.root.display().to_string()),
        ("CRL", facts.crl.clone()),
        ("OCSP", facts.ocsp.clone()),
        ("http-01 port", facts.http_01_port.to_string()),
        ("tls-alpn-01 port", facts.tls_alpn_01_port.to_string()),
        ("DNS records", format!("in {}, see README there", stack.layout.path("names").display())),
        ("nodes join at", facts.enrollment.to_string()),
        ("all of this, for scripts", stack.layout.path("demo.json").display().to_string()),
    ];
    for (name, value) in rows {
        println!("    {name:<25} {value}");
    }
    if args.always_valid {
        println!("    {:<25} no challenge is looked at, each succeeds", "always valid");
    }
    if let Some(kit) = &stack.kit {
        let directory = facts.directory.replace("/acme/open/directory", "/dir");
        println!("    {:<25} {directory}", "directory, as Pebble's");
        println!("    {:<25} {}", "management calls", kit.management);
        println!("    {:<25} {}", "DNS management calls", kit.names.as_deref().unwrap_or("none: --resolver"));
    }
    processes(stack);
    next(stack, &[]);
    println!();
}

fn processes(stack: &Stack) {
    heading("The processes");
    for role in stack.supervisor.running() {
        println!("    {:>7}  chancery {}", role.process_id(), role.name);
        for (worker, command) in children(role.process_id()) {
            println!("    {worker:>7}    └ {command}");
        }
    }
}

/// The processes that a process started, from `/proc`: ids and command lines.
pub(crate) fn children(parent: u32) -> Vec<(u32, String)> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let mut found: Vec<_> = tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>())
        .map(|id| {
            let command = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let words: Vec<_> = command.split('\0').filter(|word| !word.is_empty()).collect();
            let program = words.first().map_or("", |first| first.rsplit('/').next().unwrap_or(first));
            let rest: Vec<_> = words.iter().skip(1).copied().collect();
            (id, format!("{program} {}", rest.join(" ")))
        })
        .collect();
    found.sort_unstable();
    found
}

fn next(stack: &Stack, obtained: &[&Obtained]) {
    heading(if obtained.is_empty() { "Try" } else { "What was typed, and what to type next" });
    for obtained in obtained {
        println!("    {}", obtained.command);
    }
    if obtained.is_empty() {
        let program = program_name();
        println!("    export CHANCERY_OPERATOR={}", stack.layout.path("operator.toml").display());
        println!("    {program} overview");
        println!("    {program} certificate list");
        println!("    {program} node list");
        println!(
            "    REQUESTS_CA_BUNDLE={} certbot certonly --standalone --http-01-port {} --server {} -d www.demo.test",
            stack.facts.root.display(),
            stack.facts.http_01_port,
            stack.facts.directory
        );
    } else {
        let program = program_name();
        println!(
            "    {program} demo --serve --state ./chancery-demo    # keeps running, for your own clients"
        );
        println!("    {program} help");
    }
}

fn program_name() -> String {
    std::env::args().next().unwrap_or_else(|| "chancery".to_owned())
}

/// A port that is free now; lego binds it only when it needs it, and with a grant it does not.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

//! OCSP answers a second of the status node: kept ones, and those that a signer makes for the request; beside the token alone and
//! beside OpenSSL's responder.

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

use super::rates::{self, Rate};
use super::wrk::Counted;
use super::{Arguments, World};
use crate::ceilings::{self, Ceiling};
use crate::rounded;

/// The responder's keys that are measured, and what stands before the names of their figures.
const ALGORITHMS: [(&str, &str); 2] = [("ecdsa-p256", "ocsp"), ("rsa-2048", "ocsp_rsa")];

/// Measures; prints a table and answers the figures.
///
/// # Errors
///
/// When something that is measured does not work.
pub async fn run(arguments: &Arguments) -> anyhow::Result<Map<String, Value>> {
    let mut figures = Map::new();
    println!("\n{:42}{:>10}{:>10}{:>10}   CPU µs an answer", "OCSP", "a second", "p50 ms", "p99 ms");
    for (algorithm, prefix) in ALGORITHMS {
        let token = token(algorithm)?;
        let world = World::start(&["--responder-algorithm", algorithm]).await?;
        let serials = world.certificates(arguments.certificates).await?;
        let scene = &world.scene;
        if algorithm == "ecdsa-p256" {
            rates::warm(scene, &serials).await?;
            let (get, post) = (
                rates::cached_get(scene, &serials, arguments.seconds).await?,
                rates::cached_post(scene, &serials, arguments.seconds).await?,
            );
            row("kept, GET", &get);
            row("kept, POST", &post);
            figures.insert("ocsp_cached_per_s".to_owned(), json!(get.counted.per_second().round()));
            figures.insert("ocsp_cached_post_per_s".to_owned(), json!(post.counted.per_second().round()));
            figures.insert("ocsp_cached_cpu_us".to_owned(), rounded(sum(&get)));
        }
        let live = rates::live(scene, &serials, arguments.seconds).await?;
        row(&format!("signed for the request, {algorithm}"), &live);
        let share = live.counted.per_second() / token.per_second;
        figures.insert(format!("{prefix}_live_per_s"), json!(live.counted.per_second().round()));
        figures.insert(format!("{prefix}_live_share_of_token"), rounded(share));
        figures.insert(format!("{prefix}_live_cpu_us"), rounded(sum(&live)));
        figures.insert(format!("{prefix}_live_by_role_us"), by_role(&live));
        figures.insert(format!("{prefix}_token_per_s"), json!(token.per_second.round()));
        if algorithm == "ecdsa-p256" {
            let theirs = rates::openssl(scene, &serials, arguments.seconds)?;
            plain_row("openssl ocsp -multi, ecdsa-p256", theirs);
            figures.insert("ocsp_openssl_per_s".to_owned(), json!(theirs.per_second().round()));
        }
    }
    Ok(figures)
}

/// The token's own rate with a thread for each core; beside it in the table, with one.
fn token(algorithm: &'static str) -> anyhow::Result<Ceiling> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut last = Ceiling::default();
    for threads in if cores > 1 { vec![1, cores] } else { vec![1] } {
        last = ceilings::token(algorithm, threads).context(algorithm)?;
        let name = format!("C_Sign alone, {algorithm}, {threads} thread(s)");
        println!("{name:42}{:>10.0}{:>10}{:>10}   {:.1}", last.per_second, "", "", last.cpu_us);
    }
    ensure!(last.per_second > 0.0, "the token signs nothing");
    Ok(last)
}

fn row(name: &str, rate: &Rate) {
    let roles: Vec<_> = rate.cpu_us.iter().map(|(role, us)| format!("{role} {us:.1}")).collect();
    let (counted, roles) = (rate.counted, roles.join(", "));
    println!("{}   {:.1}: {roles}", columns(name, counted), sum(rate));
}

fn plain_row(name: &str, counted: Counted) {
    println!("{}", columns(name, counted));
}

fn columns(name: &str, counted: Counted) -> String {
    let milliseconds = |us: f64| us / 1000.0;
    format!(
        "{name:42}{:>10.0}{:>10.2}{:>10.2}",
        counted.per_second(),
        milliseconds(counted.p50_us),
        milliseconds(counted.p99_us)
    )
}

fn sum(rate: &Rate) -> f64 {
    rate.cpu_us.iter().map(|(_, us)| us).sum()
}

fn by_role(rate: &Rate) -> Value {
    rate.cpu_us.iter().map(|(role, us)| (role.clone(), rounded(*us))).collect::<Map<_, _>>().into()
}

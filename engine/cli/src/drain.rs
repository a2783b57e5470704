//! `fluvial drain` and `fluvial undrain`.

use std::time::Duration;

use anyhow::bail;
use fluvial_node::status::{DrainReport, MemberReport};
use reqwest::Method;

use crate::client::Client;

/// Between two looks at a node that is drained.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Gives a node no more processes, and waits until those that it has are gone, unless `detach` is set.
pub(crate) async fn drain(client: &Client, node: &str, detach: bool) -> anyhow::Result<()> {
    let address = find(&nodes(client).await?, node)?;
    client.change(Method::POST, &format!("nodes/{address}/drain")).await?;
    if detach {
        println!("{address} gets no more processes");
        return Ok(());
    }
    let mut said = Vec::new();
    loop {
        let nodes = nodes(client).await?;
        // What a node says that does not reach the coordinator may be old.
        if !nodes.iter().any(|node| node.coordinates) {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        let Some(drain) = nodes.into_iter().filter(|found| found.node == address).find_map(|node| node.drain) else {
            bail!("{address} was undrained meanwhile");
        };
        if drain.done {
            println!("{address} is drained: no processes run there");
            return Ok(());
        }
        let says = lines(&address, &drain);
        says.iter().filter(|line| !said.contains(*line)).for_each(|line| eprintln!("{line}"));
        said = says;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Lets a node have processes again.
pub(crate) async fn undrain(client: &Client, node: &str) -> anyhow::Result<()> {
    let address = find(&nodes(client).await?, node)?;
    client.change(Method::POST, &format!("nodes/{address}/undrain")).await?;
    println!("{address} gets processes again");
    Ok(())
}

async fn nodes(client: &Client) -> anyhow::Result<Vec<MemberReport>> {
    client.list("nodes").await
}

/// What a drain waits for.
fn lines(address: &str, drain: &DrainReport) -> Vec<String> {
    if drain.waits_for.is_empty() {
        return vec![format!("{address} is not heard, so it is not known whether processes run there")];
    }
    drain.waits_for.iter().map(|awaited| format!("waiting for {}: {}", awaited.job, awaited.why)).collect()
}

/// The address of a node that is named by its address, or by its host if that has one node.
fn find(nodes: &[MemberReport], named: &str) -> anyhow::Result<String> {
    let mut addresses: Vec<_> = nodes.iter().map(|node| node.node.as_str()).collect();
    addresses.dedup();
    if addresses.contains(&named) {
        return Ok(named.to_owned());
    }
    let of_host = |address: &&&str| address.rsplit_once(':').is_some_and(|(host, _)| host == named);
    let found: Vec<_> = addresses.iter().filter(of_host).copied().collect();
    match found.as_slice() {
        [address] => Ok((*address).to_owned()),
        [] => bail!("there is no node '{named}': the nodes are {}", addresses.join(", ")),
        _ => bail!("several nodes are on '{named}': say which of {}", found.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_node_is_named_by_its_address_or_by_a_host_with_one_node() {
        let node = |address: &str| -> MemberReport {
            let report = serde_json::json!({"node": address, "coordinates": false, "state": "ready", "processes": []});
            serde_json::from_value(report).unwrap()
        };
        let nodes = [node("a:7401"), node("b:7401"), node("b:7402")];
        assert_eq!(find(&nodes, "a").unwrap(), "a:7401");
        assert_eq!(find(&nodes, "b:7402").unwrap(), "b:7402");
        assert!(find(&nodes, "b").unwrap_err().to_string().contains("say which of b:7401, b:7402"));
        assert!(find(&nodes, "c").unwrap_err().to_string().contains("there is no node 'c'"));
    }
}

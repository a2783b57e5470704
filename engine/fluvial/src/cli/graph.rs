//! The command `graph`: the dataflow of the job as text, for Mermaid, or as JSON.

use fluvial_node::status::{Graph, NodeKind};

use crate::runtime::plan::Topology;

/// How the graph is printed.
#[derive(Debug, clap::Args)]
pub(crate) struct GraphOptions {
    /// text: the named parts in lines; mermaid: the whole dataflow, as Mermaid and many viewers of Markdown draw it; json: the
    /// same with the ids by which the job's status names its parts
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    format: GraphFormat,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum GraphFormat {
    Text,
    Mermaid,
    Json,
}

impl GraphOptions {
    /// What is to be printed.
    ///
    /// # Errors
    /// A text cannot be encoded.
    pub(crate) fn print(&self, plan: &Topology) -> anyhow::Result<String> {
        Ok(match self.format {
            GraphFormat::Text => text(plan),
            GraphFormat::Mermaid => mermaid(&plan.graph),
            GraphFormat::Json => serde_json::to_string_pretty(&plan.graph)? + "\n",
        })
    }
}

fn text(plan: &Topology) -> String {
    let mut text = String::new();
    for (name, source) in &plan.sources {
        text.push_str(&format!("source    {name}  ({})\n", source.describe()));
    }
    for name in &plan.operators {
        text.push_str(&format!("durable   {name}\n"));
    }
    for output in &plan.outputs {
        text.push_str(&format!("output    {}  ({:?}, {})\n", output.name, output.envelope, plan.sink.identity()));
    }
    text
}

/// The graph in Mermaid's language. Its identifiers are numbers, because it does not take every text for one.
fn mermaid(graph: &Graph) -> String {
    let mut text = "flowchart LR\n".to_owned();
    for (number, node) in graph.nodes.iter().enumerate() {
        let label = node.name.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;");
        let (left, right) = match node.kind {
            NodeKind::Source | NodeKind::Output => ("([", "])"),
            NodeKind::Durable => ("[(", ")]"),
            NodeKind::Operator => ("[", "]"),
        };
        text.push_str(&format!("    n{number}{left}\"{label}\"{right}\n"));
    }
    let number = |id: &str| graph.nodes.iter().position(|node| node.id == id).unwrap_or_default();
    for edge in &graph.edges {
        text.push_str(&format!("    n{} --> n{}\n", number(&edge.from), number(&edge.to)));
    }
    text
}

#[cfg(test)]
mod tests {
    use fluvial_node::status::{GraphEdge, GraphNode};

    use super::*;

    #[test]
    fn a_graph_for_mermaid_has_shapes_for_the_kinds_and_quotes_names() {
        let node = |kind: NodeKind, name: &str| GraphNode {
            id: format!("{kind}:{name}"),
            name: name.to_owned(),
            kind,
            stateful: false,
            about: None,
        };
        let nodes =
            vec![node(NodeKind::Source, "in"), node(NodeKind::Durable, "a"), node(NodeKind::Operator, "\"<x>\"")];
        let edges = vec![GraphEdge { from: "source:in".to_owned(), to: "durable:a".to_owned() }];
        let expected =
            "flowchart LR\n    n0([\"in\"])\n    n1[(\"a\")]\n    n2[\"&quot;&lt;x&gt;&quot;\"]\n    n0 --> n1\n";
        assert_eq!(mermaid(&Graph { nodes, edges }), expected);
    }
}

//! Where a drawing of a job's graph has its nodes and edges.
//!
//! The layout is that of the crate `ascii-dag`, Sugiyama's method: layers from the sources at the top to the outputs at the
//! bottom, few crossings, and edges that pass between the nodes. It computes in cells of text; here a cell is a square of some
//! pixels. **Does not** depend on figures, so a drawing stands still while the job runs.

use std::collections::BTreeMap;

use ascii_dag::ir::EdgePath;
use ascii_dag::{CustomNode, LayoutConfig, PortBound, PortPolicy, PortSide};
use serde::{Deserialize, Serialize};

use super::Graph;

/// The side of a cell in pixels.
const CELL: usize = 8;
/// The size of a node in cells: room for a name and three lines of figures.
const NODE: (usize, usize) = (27, 10);
/// Between nodes of a layer, in cells.
const BESIDE: usize = 5;
/// Between layers, in cells, besides the room for bends: room for the figures of an edge.
const BETWEEN: usize = 3;
/// A larger graph is not drawn.
const MOST_NODES: usize = 400;

/// A drawing of a [`Graph`], in pixels from its left upper corner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Layout {
    /// The width of the drawing.
    pub width: u32,
    /// The height of the drawing.
    pub height: u32,
    /// The nodes of the graph, in its order.
    pub nodes: Vec<PlacedNode>,
    /// The edges of the graph, in its order.
    pub edges: Vec<RoutedEdge>,
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlacedNode {
    /// Its id in the graph.
    pub id: String,
    /// Its left side.
    pub x: u32,
    /// Its upper side.
    pub y: u32,
    /// Its width.
    pub width: u32,
    /// Its height.
    pub height: u32,
}

/// How an edge runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RoutedEdge {
    /// The id of the node that sends records.
    pub from: String,
    /// The id of the node that gets them.
    pub to: String,
    /// Its ends and bends; the lines between them are horizontal or vertical.
    pub points: Vec<(u32, u32)>,
}

impl Layout {
    /// The layout of a graph; `None` if it is too large to be drawn.
    #[must_use]
    pub fn of(graph: &Graph) -> Option<Self> {
        if graph.nodes.len() > MOST_NODES {
            return None;
        }
        let numbers: BTreeMap<_, _> = graph.nodes.iter().zip(0..).map(|(node, at)| (node.id.as_str(), at)).collect();
        let number = |id: &String| numbers.get(id.as_str()).copied();
        let ends = graph.edges.iter().filter_map(|edge| Some((number(&edge.from)?, number(&edge.to)?, edge)));
        let ends: Vec<(usize, usize, _)> = ends.filter(|(from, to, _)| from != to).collect();
        let mut drawn = ascii_dag::Graph::new();
        for at in 0..graph.nodes.len() {
            drawn.add_node(at, CustomNode { label: "", width: NODE.0, height: NODE.1, painter: None, payload: "" });
        }
        for (from, to, _) in &ends {
            drawn.add_edge(*from, *to, None).from_port(PortSide::South).to_port(PortSide::North);
        }
        // Edges that have an end in common have it in different places, so that each can be followed.
        drawn.set_port_policy(PortPolicy::Spread(PortBound::Face));
        let config = LayoutConfig { node_spacing: BESIDE, level_spacing: BETWEEN, ..LayoutConfig::standard() };
        let laid_out = drawn.compute_layout_with_config(&config);
        let node = |(at, node): (usize, &super::GraphNode)| {
            let placed = laid_out.node_by_id(at)?;
            let (x, y) = (pixels(placed.x), pixels(placed.y));
            let (width, height) = (pixels(placed.width), pixels(placed.height));
            Some(PlacedNode { id: node.id.clone(), x, y, width, height })
        };
        let nodes = graph.nodes.iter().enumerate().filter_map(node).collect();
        let edge = |(from, to, edge): &(usize, usize, &super::GraphEdge)| {
            let routed = laid_out.edges().iter().find(|routed| (routed.from_id, routed.to_id) == (*from, *to))?;
            let begin = (routed.from_x, laid_out.node_by_id(*from).map(|node| node.y + node.height)?);
            let points = points(&routed.path, begin, (routed.to_x, routed.to_y));
            Some(RoutedEdge { from: edge.from.clone(), to: edge.to.clone(), points })
        };
        let edges = ends.iter().filter_map(edge).collect();
        Some(Self { width: pixels(laid_out.width()), height: pixels(laid_out.height()), nodes, edges })
    }
}

fn pixels(cells: usize) -> u32 {
    u32::try_from(cells * CELL).unwrap_or(u32::MAX)
}

/// The ends and bends of an edge that begins and ends at these borders.
fn points(path: &EdgePath, begin: (usize, usize), end: (usize, usize)) -> Vec<(u32, u32)> {
    let middle = |cells: usize| pixels(cells) + CELL as u32 / 2;
    let mut points = vec![(middle(begin.0), pixels(begin.1))];
    // A line down to the row of a bend, and along that row.
    let bend = |points: &mut Vec<(u32, u32)>, row: usize, to: usize| {
        let (x, y) = (points.last().map_or(0, |point| point.0), middle(row));
        if x != middle(to) {
            points.extend([(x, y), (middle(to), y)]);
        }
    };
    match path {
        EdgePath::Corner { bend_at } => bend(&mut points, *bend_at, end.0),
        EdgePath::MultiSegment { waypoints, start_offset } => {
            let mut row = begin.1 + start_offset;
            for (x, y) in waypoints {
                bend(&mut points, row, *x);
                row = y + 1;
            }
            bend(&mut points, row, end.0);
        }
        EdgePath::Orthogonal { bends } => {
            points.extend(bends.iter().map(|(x, y)| (middle(*x), middle(*y))));
        }
        _ => {}
    }
    points.push((middle(end.0), pixels(end.1)));
    points
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::status::{GraphEdge, GraphNode, NodeKind};

    fn graph(nodes: usize, edges: &[(usize, usize)]) -> Graph {
        let node = |at: usize| GraphNode {
            id: format!("n{at}"),
            name: format!("n{at}"),
            kind: NodeKind::Operator,
            stateful: false,
            about: None,
        };
        let edge = |(from, to): &(usize, usize)| GraphEdge { from: format!("n{from}"), to: format!("n{to}") };
        Graph { nodes: (0..nodes).map(node).collect(), edges: edges.iter().map(edge).collect() }
    }

    /// Edges as jobs have them: most lead to one of the next nodes, some far.
    fn made_up(nodes: usize, seed: u64) -> Vec<(usize, usize)> {
        let mut state = seed;
        let mut dice = |sides: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % sides
        };
        let mut edges = std::collections::BTreeSet::new();
        for to in 1..nodes {
            for _ in 0..=dice(2) {
                let back = 1 + if dice(4) == 0 { dice(to) } else { dice(to.min(3)) };
                edges.insert((to - back, to));
            }
        }
        edges.into_iter().collect()
    }

    #[test]
    fn nodes_are_apart_and_edges_pass_between_them_from_top_to_bottom() {
        for seed in 0..200 {
            let (nodes, edges) = (2 + seed as usize % 20, made_up(2 + seed as usize % 20, seed));
            let graph = graph(nodes, &edges);
            let layout = Layout::of(&graph).unwrap();
            assert_eq!((layout.nodes.len(), layout.edges.len()), (nodes, edges.len()), "seed {seed}");
            let apart = |a: &PlacedNode, b: &PlacedNode| {
                a.x + a.width <= b.x || b.x + b.width <= a.x || a.y + a.height <= b.y || b.y + b.height <= a.y
            };
            for (at, node) in layout.nodes.iter().enumerate() {
                assert!(node.x + node.width <= layout.width && node.y + node.height <= layout.height, "seed {seed}");
                assert!(layout.nodes[..at].iter().all(|other| apart(node, other)), "seed {seed}: {layout:?}");
            }
            let ends: std::collections::BTreeSet<_> = layout.edges.iter().map(|edge| edge.points.last()).collect();
            assert_eq!(ends.len(), edges.len(), "seed {seed}: edges end in one place: {layout:?}");
            let placed = |id: &str| layout.nodes.iter().find(|node| node.id == id).unwrap();
            for edge in &layout.edges {
                let (from, to) = (placed(&edge.from), placed(&edge.to));
                let (first, last) = (edge.points[0], *edge.points.last().unwrap());
                assert_eq!((first.1, last.1), (from.y + from.height, to.y), "seed {seed}: {edge:?}");
                assert!((from.x..from.x + from.width).contains(&first.0), "seed {seed}: {edge:?}");
                assert!((to.x..to.x + to.width).contains(&last.0), "seed {seed}: {edge:?}");
                for line in edge.points.windows(2) {
                    let ((x1, y1), (x2, y2)) = (line[0], line[1]);
                    assert!((x1 == x2 || y1 == y2) && y1 <= y2, "seed {seed}: {edge:?}");
                    let (left, right) = (x1.min(x2), x1.max(x2));
                    let crosses = |node: &&PlacedNode| {
                        left < node.x + node.width
                            && node.x < right.max(left + 1)
                            && y1 < node.y + node.height
                            && node.y < y2.max(y1 + 1)
                    };
                    let crossed = layout.nodes.iter().find(crosses);
                    assert!(crossed.is_none(), "seed {seed}: {edge:?} passes over {crossed:?}");
                }
            }
        }
    }

    #[test]
    fn parts_without_edges_are_there_and_what_is_too_large_is_not_drawn() {
        assert_eq!(Layout::of(&graph(3, &[])).unwrap().nodes.len(), 3);
        assert_eq!(Layout::of(&graph(0, &[])).unwrap(), Layout::default());
        assert!(Layout::of(&graph(MOST_NODES + 1, &[])).is_none());
    }
}

//! The trees of an ensemble, checked once, walked often.

use std::collections::HashMap;

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::super::Floats;

/// How a branch compares a value with its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    AtMost,
    Below,
    AtLeast,
    Above,
    Equal,
    NotEqual,
}

/// A branch, or a leaf with its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Branch {
        feature: u32,
        mode: Mode,
        /// Bits of the value compared with.
        value: u32,
        yes: u32,
        no: u32,
        /// Whether NaN goes to `yes`.
        nan_is_yes: bool,
    },
    /// Range of weights.
    Leaf { from: u32, to: u32 },
}

/// How trees are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

/// All trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ensemble {
    nodes: Vec<Node>,
    roots: Vec<u32>,
    /// Targets of the leaves' weights.
    targets: Vec<u32>,
    weights: Floats,
    target_count: usize,
    /// Features that a row must have.
    features: usize,
    aggregate: Aggregate,
}

/// What the attributes say of the nodes, in the file's order.
struct Columns {
    tree: Vec<i64>,
    id: Vec<i64>,
    feature: Vec<i64>,
    yes: Vec<i64>,
    no: Vec<i64>,
    value: Vec<f32>,
    nan_is_yes: Vec<i64>,
}

impl Ensemble {
    /// Reads and checks the attributes; those of leaves start with `leaf` (`class`, `target`).
    pub(super) fn of(
        node: &NodeProto,
        leaf: &str,
        target_count: usize,
        aggregate: &str,
    ) -> TractResult<Self> {
        let columns = Columns {
            tree: node.get_attr_vec("nodes_treeids")?,
            id: node.get_attr_vec("nodes_nodeids")?,
            feature: node.get_attr_vec("nodes_featureids")?,
            yes: node.get_attr_vec("nodes_truenodeids")?,
            no: node.get_attr_vec("nodes_falsenodeids")?,
            value: node.get_attr_vec("nodes_values")?,
            nan_is_yes: node
                .get_attr_opt_vec("nodes_missing_value_tracks_true")?
                .unwrap_or_default(),
        };
        let modes = node.get_attr_tvec::<&str>("nodes_modes")?;
        let count = columns.tree.len();
        let lengths = [
            columns.id.len(),
            columns.feature.len(),
            columns.yes.len(),
            columns.no.len(),
            columns.value.len(),
            modes.len(),
        ];
        node.expect(
            count > 0 && lengths.iter().all(|length| *length == count),
            "nodes_* lists of equal length, not empty",
        )?;
        node.expect(
            columns.nan_is_yes.is_empty() || columns.nan_is_yes.len() == count,
            "nodes_missing_value_tracks_true for each node",
        )?;
        let index = index(&columns)?;
        let (ranges, targets, weights) = leaves(node, leaf, &index, target_count)?;
        let nodes = (0..count)
            .map(|at| build(&columns, &index, modes[at], at, ranges[at]))
            .collect::<TractResult<Vec<_>>>()?;
        let roots = roots(&columns, &nodes)?;
        let features = nodes
            .iter()
            .map(|node| match node {
                Node::Branch { feature, .. } => *feature as usize + 1,
                Node::Leaf { .. } => 0,
            })
            .max()
            .unwrap_or(0);
        Ok(Self {
            nodes,
            roots,
            targets,
            weights: Floats(weights),
            target_count,
            features,
            aggregate: match aggregate {
                "SUM" => Aggregate::Sum,
                "AVERAGE" => Aggregate::Average,
                "MIN" => Aggregate::Min,
                "MAX" => Aggregate::Max,
                other => bail!("aggregate_function {other} is not known"),
            },
        })
    }

    /// The one target that leaves store weights of, if there is only one.
    pub(super) fn single_target(&self) -> Option<usize> {
        let first = *self.targets.first()?;
        self.targets
            .iter()
            .all(|target| *target == first)
            .then_some(first as usize)
    }

    /// Whether no leaf has a negative weight.
    pub(super) fn all_weights_positive(&self) -> bool {
        self.weights.0.iter().all(|weight| *weight >= 0.0)
    }

    /// Refuses an input that is known to have too few columns.
    pub(super) fn check_input(&self, input: &TypedFact) -> TractResult<()> {
        ensure!(input.rank() == 2, "trees take rows of features");
        if let Ok(width) = input.shape[1].to_usize() {
            self.check_width(width)?;
        }
        Ok(())
    }

    fn check_width(&self, width: usize) -> TractResult<()> {
        ensure!(
            width >= self.features,
            "the trees use {} features, a row has {width}",
            self.features
        );
        Ok(())
    }

    /// Number of rows, and one value per row and target.
    pub(super) fn sum(&self, input: &Tensor) -> TractResult<(usize, Vec<f32>)> {
        let shape = input.shape();
        ensure!(shape.len() == 2, "trees take rows of features");
        let (rows, width) = (shape[0], shape[1]);
        self.check_width(width)?;
        let cast = input.cast_to::<f32>()?;
        let plain = cast.try_as_plain_ram()?;
        let values = plain.as_slice::<f32>()?;
        let mut sums = vec![0f32; rows * self.target_count];
        for row in 0..rows {
            let values = &values[row * width..][..width];
            let sums = &mut sums[row * self.target_count..][..self.target_count];
            self.sum_row(values, sums);
        }
        Ok((rows, sums))
    }

    fn sum_row(&self, values: &[f32], sums: &mut [f32]) {
        if matches!(self.aggregate, Aggregate::Min | Aggregate::Max) {
            let start = match self.aggregate {
                Aggregate::Min => f32::INFINITY,
                _ => f32::NEG_INFINITY,
            };
            sums.fill(start);
        }
        for root in &self.roots {
            let (from, to) = self.leaf(*root, values);
            for at in from as usize..to as usize {
                let sum = &mut sums[self.targets[at] as usize];
                let weight = self.weights.0[at];
                *sum = match self.aggregate {
                    Aggregate::Sum | Aggregate::Average => *sum + weight,
                    Aggregate::Min => sum.min(weight),
                    Aggregate::Max => sum.max(weight),
                };
            }
        }
        for sum in sums {
            match self.aggregate {
                Aggregate::Average => *sum /= self.roots.len() as f32,
                // No leaf spoke for this target.
                Aggregate::Min | Aggregate::Max if sum.is_infinite() => *sum = 0.0,
                _ => {}
            }
        }
    }

    /// Range of the weights of the leaf that a row falls into.
    #[inline]
    fn leaf(&self, root: u32, values: &[f32]) -> (u32, u32) {
        let mut at = root;
        loop {
            match self.nodes[at as usize] {
                Node::Leaf { from, to } => return (from, to),
                Node::Branch {
                    feature,
                    mode,
                    value,
                    yes,
                    no,
                    nan_is_yes,
                } => {
                    let x = values[feature as usize];
                    let value = f32::from_bits(value);
                    let is_yes = if x.is_nan() {
                        nan_is_yes
                    } else {
                        match mode {
                            Mode::AtMost => x <= value,
                            Mode::Below => x < value,
                            Mode::AtLeast => x >= value,
                            Mode::Above => x > value,
                            Mode::Equal => x == value,
                            Mode::NotEqual => x != value,
                        }
                    };
                    at = if is_yes { yes } else { no };
                }
            }
        }
    }
}

/// Position of each node by tree and number.
fn index(columns: &Columns) -> TractResult<HashMap<(i64, i64), u32>> {
    let mut index = HashMap::with_capacity(columns.tree.len());
    for (at, key) in columns.tree.iter().zip(&columns.id).enumerate() {
        let at = u32::try_from(at)?;
        ensure!(
            index.insert((*key.0, *key.1), at).is_none(),
            "tree {} has node {} twice",
            key.0,
            key.1
        );
    }
    Ok(index)
}

type Leaves = (Vec<(u32, u32)>, Vec<u32>, Vec<f32>);

/// For each node the range of its weights, then the weights' targets and the weights.
fn leaves(
    node: &NodeProto,
    leaf: &str,
    index: &HashMap<(i64, i64), u32>,
    target_count: usize,
) -> TractResult<Leaves> {
    let tree: Vec<i64> = node.get_attr_vec(&format!("{leaf}_treeids"))?;
    let id: Vec<i64> = node.get_attr_vec(&format!("{leaf}_nodeids"))?;
    let target: Vec<i64> = node.get_attr_vec(&format!("{leaf}_ids"))?;
    let weight: Vec<f32> = node.get_attr_vec(&format!("{leaf}_weights"))?;
    let count = tree.len();
    node.expect(
        count > 0
            && [id.len(), target.len(), weight.len()]
                .iter()
                .all(|it| *it == count),
        "lists of the leaves of equal length, not empty",
    )?;
    let mut order = Vec::with_capacity(count);
    for at in 0..count {
        let Some(owner) = index.get(&(tree[at], id[at])) else {
            bail!(
                "a weight is for node {} of tree {}, which is not there",
                id[at],
                tree[at]
            );
        };
        let target = u32::try_from(target[at])?;
        ensure!(
            (target as usize) < target_count,
            "a weight is for target {target}, there are {target_count}"
        );
        order.push((*owner, target, weight[at]));
    }
    // Stable, so that weights of one leaf keep the file's order.
    order.sort_by_key(|(owner, ..)| *owner);
    let mut ranges = vec![(0, 0); index.len()];
    for (at, (owner, ..)) in order.iter().enumerate() {
        let range = &mut ranges[*owner as usize];
        let at = u32::try_from(at)?;
        if range.1 == 0 {
            range.0 = at;
        }
        range.1 = at + 1;
    }
    let targets = order.iter().map(|(_, target, _)| *target).collect();
    let weights = order.iter().map(|(.., weight)| *weight).collect();
    Ok((ranges, targets, weights))
}

fn build(
    columns: &Columns,
    index: &HashMap<(i64, i64), u32>,
    mode: &str,
    at: usize,
    (from, to): (u32, u32),
) -> TractResult<Node> {
    let mode = match mode {
        "LEAF" => return Ok(Node::Leaf { from, to }),
        "BRANCH_LEQ" => Mode::AtMost,
        "BRANCH_LT" => Mode::Below,
        "BRANCH_GTE" => Mode::AtLeast,
        "BRANCH_GT" => Mode::Above,
        "BRANCH_EQ" => Mode::Equal,
        "BRANCH_NEQ" => Mode::NotEqual,
        other => bail!("mode {other} of a tree's node is not known"),
    };
    let tree = columns.tree[at];
    let child = |id: i64| match index.get(&(tree, id)) {
        Some(child) => Ok(*child),
        None => Err(anyhow!(
            "node {} of tree {tree} has child {id}, which is not there",
            columns.id[at]
        )),
    };
    Ok(Node::Branch {
        feature: u32::try_from(columns.feature[at])?,
        mode,
        value: columns.value[at].to_bits(),
        yes: child(columns.yes[at])?,
        no: child(columns.no[at])?,
        nan_is_yes: columns.nan_is_yes.get(at).is_some_and(|track| *track != 0),
    })
}

/// The first node of each tree, once it is sure that every walk from there ends.
fn roots(columns: &Columns, nodes: &[Node]) -> TractResult<Vec<u32>> {
    let mut is_child = vec![false; nodes.len()];
    for node in nodes {
        if let Node::Branch { yes, no, .. } = node {
            for child in [*yes, *no] {
                ensure!(
                    !std::mem::replace(&mut is_child[child as usize], true),
                    "a tree's node is the child of two"
                );
            }
        }
    }
    // Every node has at most one parent, so from a node without one the walk cannot come back.
    let mut roots: Vec<(i64, u32)> = Vec::new();
    for (at, is_child) in is_child.iter().enumerate() {
        if !is_child {
            roots.push((columns.tree[at], u32::try_from(at)?));
        }
    }
    roots.sort_by_key(|(tree, _)| *tree);
    ensure!(
        roots.windows(2).all(|pair| pair[0].0 != pair[1].0),
        "a tree has two roots"
    );
    let mut trees: Vec<i64> = columns.tree.clone();
    trees.sort_unstable();
    trees.dedup();
    ensure!(roots.len() == trees.len(), "a tree has no root");
    let roots: Vec<u32> = roots.into_iter().map(|(_, at)| at).collect();
    let mut below = roots.clone();
    let mut reached = 0;
    while let Some(at) = below.pop() {
        reached += 1;
        if let Node::Branch { yes, no, .. } = nodes[at as usize] {
            below.extend([yes, no]);
        }
    }
    ensure!(
        reached == nodes.len(),
        "a tree has nodes that go in a circle"
    );
    Ok(roots)
}

//! Proofs over the Merkle tree of RFC 6962: a line is in it, a smaller tree is its beginning.
//!
//! Both are the same walk: the hashes beside a node on its way up to the root. For a line the node
//! is its leaf; for a smaller tree it is the last complete subtree of that tree.

use crate::chain::{Tree, hash_leaf, hash_node};

/// Collects a proof while a tree grows, without keeping its lines.
#[derive(Clone, Debug)]
pub struct Prover {
    tree: Tree,
    /// The node on the way up: its level, and its number among the nodes of that level.
    level: u32,
    number: u64,
    /// The hash of the node that is proved, once it is complete.
    node: Option<[u8; 32]>,
    /// The size of the smaller tree that is proved, if that is what is.
    size: Option<u64>,
    path: Vec<[u8; 32]>,
}

impl Prover {
    /// Of the line with this number, which is not in the tree yet.
    pub fn of_line(tree: Tree, line: u64) -> Option<Self> {
        let fits = line >= tree.parts().0;
        fits.then_some(Self {
            tree,
            level: 0,
            number: line,
            node: None,
            size: None,
            path: Vec::new(),
        })
    }

    /// Of the first so many lines, at least as many as are in the tree already.
    pub fn of_size(tree: Tree, size: u64) -> Option<Self> {
        if size == 0 || size < tree.parts().0 {
            return None;
        }
        let level = size.trailing_zeros();
        let node = tree.parts().1.last().copied().filter(|_| tree.parts().0 == size);
        let number = (size >> level) - 1;
        Some(Self { tree, level, number, node, size: Some(size), path: Vec::new() })
    }

    /// Appends a line.
    pub fn append(&mut self, line: &[u8]) {
        let count = self.tree.parts().0;
        let mut node = hash_leaf(line);
        self.meet(0, count, None, node);
        for level in 0..count.trailing_ones() {
            let Some(left) = self.tree.pop() else { break };
            let right = node;
            node = hash_node(&left, &right);
            self.meet(level + 1, count >> (level + 1), Some((left, right)), node);
        }
        self.tree.push(node);
    }

    /// A node is complete: it is the one looked for, or its parent.
    fn meet(
        &mut self,
        level: u32,
        number: u64,
        halves: Option<([u8; 32], [u8; 32])>,
        hash: [u8; 32],
    ) {
        if self.node.is_none() {
            if (level, number) == (self.level, self.number) {
                self.node = Some(hash);
            }
        } else if let Some((left, right)) = halves
            && (level, number) == (self.level + 1, self.number >> 1)
        {
            self.path.push(if self.number & 1 == 1 { left } else { right });
            (self.level, self.number) = (level, number);
        }
    }

    /// The tree as it is now.
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What proves it in the tree as it is now: hashes from the node upwards.
    pub fn proof(&self) -> Option<Vec<[u8; 32]>> {
        let node = self.node?;
        if self.size == Some(self.tree.parts().0) {
            return Some(Vec::new());
        }
        // A tree that is complete has the node for its root, which whoever checks knows.
        let shown = self.size.filter(|size| !size.is_power_of_two()).map(|_| node);
        let mut path: Vec<[u8; 32]> = shown.into_iter().chain(self.path.iter().copied()).collect();
        let (count, edge) = self.tree.parts();
        // Its place on the edge is the number of larger subtrees that are complete before it.
        let before = (count >> (self.level + 1)).count_ones();
        let (left, rest) = edge.split_at_checked(usize::try_from(before).ok()?)?;
        let right = rest.get(1..)?.iter().rev().copied();
        path.extend(right.reduce(|right, left| hash_node(&left, &right)));
        path.extend(left.iter().rev());
        Some(path)
    }
}

/// True if `path` proves that line number `line`, of these bytes, is in the tree of `size` lines
/// with this root (RFC 9162, section 2.1.3.2).
pub fn includes(root: &[u8; 32], size: u64, line: u64, bytes: &[u8], path: &[[u8; 32]]) -> bool {
    if line >= size {
        return false;
    }
    let mut walk = Walk { number: line, last: size - 1 };
    let mut node = hash_leaf(bytes);
    for beside in path {
        let Some(side) = walk.up() else { return false };
        node = side.join(&node, beside);
    }
    walk.last == 0 && node == *root
}

/// True if `path` proves that the tree of `first` lines is the beginning of that of `second`
/// (RFC 9162, section 2.1.4.2).
pub fn extends(
    (first, first_root): (u64, &[u8; 32]),
    (second, second_root): (u64, &[u8; 32]),
    path: &[[u8; 32]],
) -> bool {
    if first == second {
        return path.is_empty() && first_root == second_root;
    }
    if first == 0 || first > second {
        return false;
    }
    let mut walk = Walk { number: first - 1, last: second - 1 };
    while walk.number & 1 == 1 {
        walk = Walk { number: walk.number >> 1, last: walk.last >> 1 };
    }
    let (node, path) = match path.split_first() {
        _ if first.is_power_of_two() => (first_root, path),
        Some((node, path)) => (node, path),
        None => return false,
    };
    let (mut small, mut large) = (*node, *node);
    for beside in path {
        match walk.up() {
            None => return false,
            Some(Side::Left) => {
                small = hash_node(beside, &small);
                large = hash_node(beside, &large);
            }
            Some(Side::Right) => large = hash_node(&large, beside),
        }
    }
    walk.last == 0 && small == *first_root && large == *second_root
}

/// On which side of a node its sibling is.
enum Side {
    Left,
    Right,
}

impl Side {
    fn join(&self, node: &[u8; 32], beside: &[u8; 32]) -> [u8; 32] {
        match self {
            Self::Left => hash_node(beside, node),
            Self::Right => hash_node(node, beside),
        }
    }
}

/// A node's number on its level, and the last number there.
struct Walk {
    number: u64,
    last: u64,
}

impl Walk {
    /// Goes up to the next node that has a sibling; `None` at the root.
    fn up(&mut self) -> Option<Side> {
        if self.last == 0 {
            return None;
        }
        let side = if self.number & 1 == 1 || self.number == self.last {
            while self.number & 1 == 0 && self.number != 0 {
                self.number >>= 1;
                self.last >>= 1;
            }
            Side::Left
        } else {
            Side::Right
        };
        self.number >>= 1;
        self.last >>= 1;
        Some(side)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(number: u64) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    fn tree(size: u64) -> Tree {
        let mut tree = Tree::default();
        (0..size).for_each(|number| tree.append(&line(number)));
        tree
    }

    fn grown(mut prover: Prover, from: u64, to: u64) -> Prover {
        (from..to).for_each(|number| prover.append(&line(number)));
        prover
    }

    /// The paths of the example in RFC 6962, section 2.1.3, of seven lines.
    #[test]
    fn the_published_example_holds() {
        let hashes: Vec<[u8; 32]> = (0..7).map(|number| hash_leaf(&line(number))).collect();
        let pair = |left: usize| hash_node(&hashes[left], &hashes[left + 1]);
        let (ab, cd, ef, last) = (pair(0), pair(2), pair(4), hashes[6]);
        let (abcd, rest) = (hash_node(&ab, &cd), hash_node(&ef, &last));
        let path = |number| {
            grown(Prover::of_line(Tree::default(), number).unwrap(), 0, 7).proof().unwrap()
        };
        assert_eq!(path(0), [hashes[1], cd, rest]);
        assert_eq!(path(3), [hashes[2], ab, rest]);
        assert_eq!(path(4), [hashes[5], last, abcd]);
        assert_eq!(path(6), [ef, abcd]);
        let proof =
            |size| grown(Prover::of_size(Tree::default(), size).unwrap(), 0, 7).proof().unwrap();
        assert_eq!(proof(3), [hashes[2], hashes[3], ab, rest]);
        assert_eq!(proof(4), [rest]);
        assert_eq!(proof(6), [ef, last, abcd]);
    }

    #[test]
    fn only_a_beginning_that_is_not_past_yet_can_be_proved() {
        let begins = |size| Prover::of_size(tree(5), size).is_some();
        assert_eq!([0, 1, 4, 5, 6].map(begins), [false, false, false, true, true]);
        assert!(Prover::of_size(Tree::default(), 0).is_none());
    }

    #[test]
    fn nothing_and_more_than_all_are_no_beginnings() {
        let root = tree(4).root();
        assert!(!extends((0, &root), (4, &root), &[]));
        assert!(!extends((8, &root), (4, &root), &[]));
        assert!(extends((4, &root), (4, &root), &[]));
        assert!(!extends((4, &root), (4, &root), &[root]));
    }

    proptest! {
        /// A proof that was collected from any start on convinces, and of nothing else.
        #[test]
        fn every_line_and_every_beginning_is_proved(
            size in 1_u64..200, part: prop::sample::Index, start: prop::sample::Index,
        ) {
            let at = part.index(usize::try_from(size).unwrap()) as u64;
            let from = start.index(usize::try_from(at + 1).unwrap()) as u64;
            let root = tree(size).root();
            let prover = Prover::of_line(tree(from), at).unwrap();
            let path = grown(prover, from, size).proof().unwrap();
            prop_assert!(includes(&root, size, at, &line(at), &path));
            prop_assert!(!includes(&root, size, at, &line(at + 1), &path));
            prop_assert!(!includes(&root, size, at + 1, &line(at), &path));

            let first = at + 1;
            let prover = Prover::of_size(tree(from), first).unwrap();
            let proof = grown(prover, from, size).proof().unwrap();
            let small = tree(first).root();
            prop_assert!(extends((first, &small), (size, &root), &proof));
            prop_assert!(!extends((first, &[0; 32]), (size, &root), &proof));
            prop_assert!(!extends((first, &small), (size, &[0; 32]), &proof));
        }
    }
}

//! Memory that is neither swapped nor dumped: the only room with unsafe code.

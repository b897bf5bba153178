"""The geometry of adapters from anywhere: how large, sparse and orthogonal, and where they meet."""

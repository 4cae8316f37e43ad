"""The BOSH release of ipsec-agent; this directory is laid out as `bosh create-release` wants it."""

"""Supervises strongSwan's charon so that packets between the VMs of a deployment travel as ESP."""

__version__ = "0.2.0"

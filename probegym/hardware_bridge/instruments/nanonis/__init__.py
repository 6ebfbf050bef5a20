"""The Nanonis SPM controller: its wire, a driver for it, and a twin that speaks it."""

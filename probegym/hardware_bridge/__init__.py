"""The bridge from a policy to an instrument: commands, twins, guard, drivers, records, deployment and the operator's page."""

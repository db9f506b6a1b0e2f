"""What goes over the wire between the router and whoever renders or probes, without I/O."""

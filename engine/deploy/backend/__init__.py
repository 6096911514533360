"""Where stacks are stored: the layout of Pulumi's self-managed ("DIY") backends, on a folder."""

"""From a token store to the batches of training: order, augmentation, loaders."""

from vesselsdf.mesh.checks import check as check
from vesselsdf.mesh.colours import colour_by_radius as colour_by_radius
from vesselsdf.mesh.intersections import self_intersections as self_intersections
from vesselsdf.mesh.wall import surface as surface
from vesselsdf.mesh.writers import write_mesh as write_mesh
